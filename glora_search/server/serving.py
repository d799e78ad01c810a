"""Run a server: settings from what the command line and the environment say, then uvicorn."""

from __future__ import annotations

from pathlib import Path

from glora_search.recording.storage_url import parse_url, resolve_storage
from glora_search.server.settings import ServerSettings


def server_settings(
    *, host: str, port: int, root: Path, storage: str | None, address: str | None
) -> ServerSettings:
    """The settings of a server; makes its folder."""
    root = root.expanduser().absolute()
    root.mkdir(parents=True, exist_ok=True)
    return ServerSettings(
        storage=_absolute(resolve_storage(storage)),
        root=root,
        address=address,
        host=host,
        port=port,
    )


def run_server(settings: ServerSettings) -> None:
    """Serve until Ctrl-C or a polite kill."""
    import uvicorn

    from glora_search.server.app import make_app

    uvicorn.run(make_app(settings), host=settings.host, port=settings.port, log_level="warning")


def _absolute(url: str) -> str:
    """A database URL that means the same in every working directory."""
    file = parse_url(url).sqlite_file
    return url if file is None else f"sqlite:///{file.absolute()}"
