"""A PostgreSQL server of a test's own, which may be stopped, crashed and started again.

It lives in a temporary folder and listens on a port of its own; the server that this machine may
have, and that others use, is left alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

_USER: Final = "postgres"
_PATIENCE_S: Final = 120


class OwnPostgres:
    """A server with one empty database. Made by `own_postgres`.

    Args:
        folder: New, and for the server alone.
        programs: Where `initdb` and `pg_ctl` are.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self._programs, self._data = programs, folder / "data"
        self._log = folder / "log"
        self._as_user: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            account = pwd.getpwnam(_USER)
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._as_user = ["setpriv", f"--reuid={_USER}", f"--regid={account.pw_gid}"]
            self._as_user.append("--clear-groups")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-U", _USER, "-A", "trust", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        self._pg_ctl("start", "-l", str(self._log), "-o", options)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it: in order, or as a crash would; connections are cut either way."""
        self._pg_ctl("stop", "-m", mode)

    def _pg_ctl(self, *words: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", str(_PATIENCE_S), *words)

    def _run(self, program: str, *words: str) -> None:
        # Its output goes to a file: a server keeps a pipe open for as long as it runs.
        with tempfile.TemporaryFile("w+") as output:
            ended = subprocess.run(
                [*self._as_user, str(self._programs / program), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                timeout=2 * _PATIENCE_S,
                check=False,
            )
            output.seek(0)
            if ended.returncode:
                raise RuntimeError(f"{program} {words[-1]}: {output.read()}")


def missing() -> str | None:
    """Why no server can be made here; None where one can."""
    if _programs() is None:
        return "no PostgreSQL server is installed below /usr/lib/postgresql or on the path"
    if os.getuid() == 0:
        try:
            pwd.getpwnam(_USER)
        except KeyError:
            return f"running as root, and there is no user {_USER!r} to run a PostgreSQL server as"
    return None


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A running server; stopped and removed at the end of the context."""
    programs = _programs()
    if programs is None:
        raise RuntimeError(missing())
    folder = Path(tempfile.mkdtemp(prefix="own-postgres-"))
    try:
        server = OwnPostgres(folder, programs)
        try:
            yield server
        finally:
            with suppress(RuntimeError):  # it is stopped already
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
