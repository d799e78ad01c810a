"""Run a server: settings from what the command line and the environment say, then uvicorn."""

from __future__ import annotations

import errno
import gc
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glora_search.operations.running import JobRunner
from glora_search.recording.storage_url import parse_url, resolve_storage
from glora_search.server.settings import LOOPBACK, ServerSettings
from search_spaces import GLoRASearchError

TOKEN: Final = "GLORA_SEARCH_SERVER_TOKEN"
READ_TOKEN: Final = "GLORA_SEARCH_SERVER_READ_TOKEN"

_MOUNTED: Final = Path("/run/secrets")
"""Where container engines put secrets."""

_SHORTEST: Final = 16  # characters of a token
_BACKLOG: Final = 2048  # connections that wait to be accepted, as uvicorn has it
_GRACE_S: Final = 1  # for answers that are under way; streams of events would never end


class ServerError(GLoRASearchError, ValueError):
    """A server cannot start as it was told to."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `glora-search serve` takes.

    Args:
        host: As in `ServerSettings`.
        port: As in `ServerSettings`.
        root: As in `ServerSettings`; made if it is not there.
        storage: As in `glora_search.launch`.
        address: As in `ServerSettings`.
        data_roots: As in `ServerSettings`.
        artifacts: As in `ServerSettings`.
        allowed_hosts: As in `ServerSettings`.
        token_file: Holds the token; else the environment has it.
        read_token_file: Holds the token for reading; else the environment has it.
    """

    host: str
    port: int
    root: Path
    storage: str | None = None
    address: str | None = None
    data_roots: Sequence[Path] = ()
    artifacts: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    token_file: Path | None = None
    read_token_file: Path | None = None

    def settings(self) -> ServerSettings:
        """The settings of the server; makes its folder.

        Raises:
            ServerError: Others would reach it without a token, or a token cannot be read.
            StorageError: The database's URL is not accepted, or jobs could not reach it.
        """
        token, read_token = _token(self.token_file, TOKEN), _token(self.read_token_file, READ_TOKEN)
        if self.host not in LOOPBACK and token is None:
            raise ServerError(
                f"--host {self.host} lets other machines in, and there is no token; put one into "
                f"a file and give --token-file FILE (or set {TOKEN}_FILE), such as: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' > token"
            )
        if read_token is not None and token is None:
            raise ServerError("a token for reading needs a token for the rest: give --token-file")
        if token is not None and token == read_token:
            raise ServerError("the token for reading is the same as the one for everything")
        if self.address is not None and not self.address.startswith(("http://", "https://")):
            raise ServerError(
                f"--address {self.address!r} is no dashboard of a cluster; accepted: "
                "http://HOST:8265, or none to run studies as processes of this machine"
            )
        if self.address is not None:
            JobRunner(address=self.address, storage=self.storage).check_storage()
        root = self.root.expanduser().absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"--root {root} cannot be made: {error}") from error
        return ServerSettings(
            storage=_absolute(resolve_storage(self.storage)),
            root=root.resolve(),
            data_roots=tuple(path.expanduser().resolve() for path in self.data_roots),
            artifacts=tuple(place.rstrip("/") for place in self.artifacts),
            address=self.address,
            job_storage=self.storage,
            host=self.host,
            port=self.port,
            token=token,
            read_token=read_token,
            allowed_hosts=tuple(host.lower() for host in self.allowed_hosts),
        )


def run_server(settings: ServerSettings, tell_ready: Callable[[], None] = lambda: None) -> None:
    """Serve until Ctrl-C or a polite kill.

    Args:
        settings: What the server is told.
        tell_ready: Called once the port is the server's.

    Raises:
        ServerError: What the server needs is not installed, or it cannot listen at its port.
    """
    try:
        import uvicorn

        from glora_search.server.app import make_app
    except ImportError as error:
        raise ServerError(
            f"the server needs packages that are not installed ({error.name}); install them with: "
            "pip install 'glora-search[server]'"
        ) from error
    app = make_app(settings)
    sockets = listening_sockets(settings.host, settings.port)
    tell_ready()
    logging.getLogger("glora_search.server").setLevel(logging.INFO)
    # What is loaded stays, so the collector need not look through it again and again: that stops
    # all requests for a tenth of a second.
    gc.freeze()
    # The access log would hold a line for each request of each reader; headers it never holds.
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when it has ended
        uvicorn.Server(config).run(sockets)


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host.

    Args:
        host: A name or an address.
        port: At each of its addresses.

    Raises:
        ServerError: The host is not one of this machine, or the port is not free.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in dict.fromkeys(found):
            try:
                listener = socket.create_server(address, family=family, backlog=_BACKLOG)
                # Connections have it from here: asyncio sets it for sockets of its own alone, and
                # an answer that waits for the acknowledgement of its headers takes 40 ms more.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.append(listener)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = error  # such as ::1 of localhost on a machine without IPv6
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise ServerError(
            f"the server cannot listen on --host {host} --port {port}: {error.strerror}; give "
            "another --port or --host, or end the process that listens there"
        ) from error
    return sockets


def _token(file: Path | None, variable: str) -> str | None:
    """A token from a file that was given, from the environment, or from a file that is named there.

    Raises:
        ServerError: The file cannot be read, others can read it, or the token is short.
    """
    named = os.environ.get(f"{variable}_FILE")
    file = file or (Path(named) if named else None)
    if file is None:
        token = os.environ.get(variable)
        return None if token is None else _checked(token.strip(), variable)
    try:
        mode = file.stat().st_mode
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"the token's file {file} cannot be read: {error}") from error
    others = stat.S_IRWXG | stat.S_IRWXO
    if file.is_relative_to(_MOUNTED):  # all may read there, and a container has one user
        others = stat.S_IWGRP | stat.S_IWOTH
    if mode & others:
        raise ServerError(f"others can read or write the token's file {file}; chmod 600 {file}")
    return _checked(token, str(file))


def _checked(token: str, where: str) -> str:
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        example = secrets.token_urlsafe(32)
        raise ServerError(
            f"the token in {where} is not one: at least {_SHORTEST} letters and digits on one "
            f"line, such as {example}"
        )
    return token


def _absolute(url: str) -> str:
    """A database URL that means the same in every working directory."""
    file = parse_url(url).sqlite_file
    return url if file is None else f"sqlite:///{file.absolute()}"
