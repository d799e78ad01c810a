"""The verbs of `glora-search --server URL`: the same words, and a server does it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from glora_search.cli import options
from glora_search.cli.output import Output, number, tell
from search_spaces import GLoRASearchError

if TYPE_CHECKING:
    from glora_search.client import Client, Status
    from glora_search.study.picking import Pick

_TOKEN: Final = "GLORA_SEARCH_SERVER_TOKEN"

detach = click.option("--detach", is_flag=True, help="Do not wait for the end.")


@click.command(short_help="Send a study to the server, and start it.")
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.toml")
@options.overrides("a key of the study file")
@detach
@options.as_json
@click.pass_obj
def launch(
    server: str, study: Path, overrides: tuple[str, ...], detach: bool, as_json: bool
) -> None:
    """Send a study to the server, start it, and follow it to its end.

    Paths in the study are those of the server. Ctrl-C ends the following, and leaves the study
    alone.
    """
    from glora_search.study.reading import apply_overrides, read_study_table

    table = read_study_table(study)
    apply_overrides(table, overrides)
    with _client(server) as client:
        name = client.create(table, start=True)
        _follow(client, name, detach, as_json)


@click.command(short_help="Launch a study that was created and not started.")
@click.argument("name")
@detach
@options.as_json
@click.pass_obj
def start(server: str, name: str, detach: bool, as_json: bool) -> None:
    """Launch a study that was created on the server, and follow it to its end."""
    with _client(server) as client:
        client.start(name)
        _follow(client, name, detach, as_json)


@click.command(short_help="Go on with a study where it stopped.")
@click.argument("name")
@options.overrides("where candidates are evaluated, how often things are written, the export")
@detach
@options.as_json
@click.pass_obj
def resume(server: str, name: str, overrides: tuple[str, ...], detach: bool, as_json: bool) -> None:
    """Go on with a study where it stopped, and follow it to its end."""
    with _client(server) as client:
        client.resume(name, overrides=overrides)
        _follow(client, name, detach, as_json)


@click.command(short_help="Interrupt a study; it can be resumed.")
@click.argument("name")
@options.as_json
@click.pass_obj
def stop(server: str, name: str, as_json: bool) -> None:
    """Interrupt a study as Ctrl-C would, and wait until it has ended."""
    with _client(server) as client:
        client.stop(name)
        client.wait(name)
        _study_output(_status(client, name)).show(as_json)


@click.command(short_help="What is in the server's database.")
@click.argument("name", required=False)
@options.as_json
@click.pass_obj
def status(server: str, name: str | None, as_json: bool) -> None:
    """What is in the server's database, how far it is, the best so far."""
    with _client(server) as client:
        if name is not None:
            _study_output(_status(client, name)).show(as_json)
            return
        _list_output(list(client.studies()), server).show(as_json)


@click.command(short_help="What a study has written.")
@click.argument("name")
@click.pass_obj
def logs(server: str, name: str) -> None:
    """The end of what a study has written."""
    with _client(server) as client:
        click.echo(client.logs(name), nl=False)


@click.command(short_help="Save the export of a study, or of a subnet.")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A file that ends with .zip, or a new folder. [default: NAME.zip]",
)
@options.digest
@options.pick
@options.max_params
@click.pass_obj
def export(
    server: str,
    name: str,
    out: Path | None,
    digest: str | None,
    pick: Pick | None,
    max_params: int | None,
) -> None:
    """Save the export that ended a study, or that of a subnet, which the server makes first; a
    download that broke off goes on.
    """
    path = out or Path(f"{name}.zip")
    folder = path.suffix != ".zip"
    if folder and path.exists():
        raise click.UsageError(f"{path} is there already")
    packed = path.with_name(f"{path.name}.zip") if folder else path
    with _client(server) as client:
        client.export(name, packed, digest=digest, pick=pick, max_params=max_params)
    if folder:
        _unpack(packed, path)
    click.echo(path)


@click.command(short_help="Pictures and tables of a study as one HTML file.")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="The file. [default: NAME.html]")
@click.pass_obj
def report(server: str, name: str, out: Path | None) -> None:
    """Save pictures and tables of a study as one HTML file that needs no network."""
    path = out or Path(f"{name}.html")
    with _client(server) as client:
        client.report(name, path)
    click.echo(path)


@click.command(short_help="Delete a study that does not run.")
@click.argument("name")
@click.option("--confirm", required=True, metavar="NAME", help="The study's name once more.")
@click.option("--files", is_flag=True, help="Delete its folder on the server as well.")
@click.pass_obj
def delete(server: str, name: str, confirm: str, files: bool) -> None:
    """Delete a study that does not run. That cannot be undone."""
    if confirm != name:
        raise click.UsageError(f"to delete study {name!r}, give --confirm {name}")
    with _client(server) as client:
        client.delete(name, files=files)
    click.echo(name)


VERBS: Final = (launch, start, resume, stop, status, logs, export, report, delete)


def _unpack(packed: Path, path: Path) -> None:
    """Make a folder of an archive, whole or not at all, and remove the archive."""
    partly = path.with_name(f".{path.name}.partly")
    shutil.rmtree(partly, ignore_errors=True)  # of a call that was interrupted
    shutil.unpack_archive(packed, partly)
    partly.rename(path)
    packed.unlink()


@contextmanager
def _client(server: str) -> Iterator[Client]:
    from glora_search.client import Client

    named = os.environ.get(f"{_TOKEN}_FILE")
    try:
        token = Path(named).read_text(encoding="ascii") if named else os.environ.get(_TOKEN)
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the token's file {named} cannot be read: {error}") from None
    with Client(server, token=token.strip() if token else None) as client:
        yield client


def _follow(client: Client, name: str, detach: bool, as_json: bool) -> None:
    """Tell of a study until nobody drives it any more."""
    if not detach:
        try:
            _tell_events(client, name)
        except KeyboardInterrupt:
            tell(f"study {name} goes on; `glora-search --server URL stop {name}` interrupts it")
            raise
    _study_output(_status(client, name)).show(as_json)


def _status(client: Client, name: str) -> Status:
    """How a study stands; why it ended early is read anew: the server's word may be an old one."""
    found = client.status(name)
    if found["progress"] and not found["running"] and found["status"] != "complete":
        from glora_search.operations.running import last_line

        with suppress(GLoRASearchError):
            found["progress"] = last_line(client.logs(name, tail=10_000)) or found["progress"]
    return found


def _tell_events(client: Client, name: str) -> None:
    for event in client.events(name):
        if event.kind == "progress":
            tell(event.data["line"])
        elif event.kind == "state":
            data, best = event.data, event.data["best"] or {}
            done = f"{data['evaluated']} of {data['planned']}"
            tell(f"{data['status']}: {done}, best so far: val loss {number(best.get('loss'), 4)}")
            if not data["running"]:
                return
        elif event.kind == "gone":
            return


def _list_output(studies: list[dict[str, Any]], server: str) -> Output:
    return Output(
        title=server,
        columns=("study", "status", "evaluated", "failed", "best", "held by"),
        rows=[
            (
                study["study"],
                study["status"] or "-",
                f"{study['evaluated']} of {study['planned'] or '-'}",
                str(study["failed"]),
                number(study["best"], 4),
                study["held_by"] or "-",
            )
            for study in studies
        ],
        document=studies,
    )


def _study_output(status: Status) -> Output:
    lines = [
        f"{status['study']}: {status['status']}, "
        f"{status['evaluated']} of {status['planned'] or '-'} evaluated, {status['failed']} failed",
    ]
    if best := status["best"]:
        lines.append(
            f"best: trial {best['trial']}, val loss {number(best['loss'], 4)}, "
            f"top-1 {number(best['top1'], 4)}, {best['n_params']:,} parameters"
        )
    if front := status["front"]:
        lines.append(
            f"front: {len(front['trials'])} subnets, knee trial {front['knee']}, "
            f"hypervolume {number(front['hypervolume'], 4)}"
        )
    if status["running"]:
        lines.append(f"driven by {status['held_by']}")
    elif status["status"] != "complete":
        if status["progress"]:
            lines.append(f"last words: {status['progress']}")
        verb = "start" if status["status"] == "created" else "resume"
        lines.append(f"nothing drives it; go on with `{verb} {status['study']}`")
    if status["export"]:
        lines.append(f"export on the server: {status['export']['directory']}")
    return Output(document=status, lines=lines)
