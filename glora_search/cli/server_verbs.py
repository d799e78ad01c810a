"""The verb of the server: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from glora_search.cli import options


@click.command(
    short_help="Serve studies over HTTP: REST, events and a page.",
    epilog="""\b
Examples:
  glora-search serve
  glora-search serve --storage postgresql://me@db/studies --address http://head:8265
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8484, show_default=True, help="Where to listen.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("glora-search-runs"),
    show_default=True,
    help="The folder below which studies write.",
)
@options.storage
@click.option(
    "--address",
    metavar="http://HOST:8265",
    help="Ray cluster that runs the studies as jobs. [default: processes of this machine]",
)
def serve(host: str, port: int, root: Path, storage: str | None, address: str | None) -> None:
    """Serve studies over HTTP, until Ctrl-C. Studies that it started go on without it."""
    from glora_search.server.serving import run_server, server_settings

    run_server(server_settings(host=host, port=port, root=root, storage=storage, address=address))


VERBS: Final = (serve,)
