"""The verb of the server: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from glora_search.cli import options
from glora_search.cli.output import tell

_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@click.command(
    short_help="Serve studies over HTTP: REST, events, metrics.",
    epilog="""\b
Examples:
  glora-search serve
  glora-search serve --storage postgresql://me@db/studies --address http://head:8265
  glora-search serve --host 0.0.0.0 --token-file token --data-root /data
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8484,
    show_default=True,
    help="Where to listen.",
)
@click.option(
    "--root",
    type=_FOLDER,
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
@click.option(
    "--data-root",
    "data_roots",
    type=_FOLDER,
    multiple=True,
    help="A folder from which studies may read. May be given several times.",
)
@click.option(
    "--artifacts",
    multiple=True,
    metavar="URL",
    help="What cluster.artifacts of a study may begin with. May be given several times.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which this server is reached. May be given several times.",
)
@click.option("--token-file", type=_FILE, help="The token that allows everything.")
@click.option("--read-token-file", type=_FILE, help="The token that allows to read.")
def serve(host: str, port: int, root: Path, **others: Any) -> None:
    """Serve studies over HTTP, until Ctrl-C. Studies that it started go on without it, and another
    server of the same database, or this one later, sees and stops them.

    Any host but the loopback needs a token: --token-file, $GLORA_SEARCH_SERVER_TOKEN_FILE or
    $GLORA_SEARCH_SERVER_TOKEN.
    """
    from glora_search.server.serving import ServeOptions, run_server

    settings = ServeOptions(host=host, port=port, root=root, **others).settings()
    shown = f"[{host}]" if ":" in host else host
    ready = f"serving on http://{shown}:{port}, API at /api/v1; Ctrl-C ends it, and no study"
    run_server(settings, lambda: tell(ready))


VERBS: Final = (serve,)
