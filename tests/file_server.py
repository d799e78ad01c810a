"""An FTP server of a test's own on the loopback: a file system that others reach, for artifacts."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the modules that it stands on
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

USER: Final = "ada"
READER: Final = "eve"
"""May list and read, and nothing else."""
PASSWORD: Final = "Zq7 secret"


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve `folder`; gives the URL, without user and password."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(folder), perm="elradfmwMT")
    authorizer.add_user(READER, PASSWORD, str(folder), perm="elr")

    class Handler(FTPHandler):  # type: ignore[misc]
        pass

    Handler.authorizer = authorizer
    Handler.auth_failed_timeout = 0  # it would wait seconds before it says no
    server = FTPServer(("127.0.0.1", 0), Handler)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.ioloop.loop(timeout=0.01, blocking=False)

    thread = threading.Thread(target=serve, name="file server")
    thread.start()
    try:
        yield f"ftp://127.0.0.1:{server.address[1]}"
    finally:
        ended.set()
        thread.join()
        server.close_all()
