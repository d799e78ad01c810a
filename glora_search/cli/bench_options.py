"""Options that the verbs of comparisons share, and how a comparison is shown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from glora_search.cli.options import Verb
from glora_search.cli.output import Output, tell

if TYPE_CHECKING:
    from glora_search.operations.recorded_bench import Comparison

AGAIN: Final = "; what has ended is recorded, and the same command goes on"
"""After an interruption."""


def names(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
    """Names with commas between them; None where the option was not given."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(context: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Whole numbers with commas between them; None where the option was not given."""
    found = names(context, option, text)
    try:
        return None if found is None else tuple(int(each) for each in found)
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected whole numbers with commas") from None


def listed(name: str, what: str) -> Callable[[Verb], Verb]:
    """An option that takes names with commas.

    Args:
        name: Of the option.
        what: Which names, for the help.
    """
    option: Any = click.option(
        name, callback=names, metavar="A,B,...", help=f"{what}, with commas. [default: all]"
    )
    return option  # type: ignore[no-any-return]


methods = listed("--methods", "Methods")
tasks = listed("--tasks", "Tasks")
reference = click.option(
    "--reference", metavar="METHOD", help="Method to which the others are compared."
)
epochs = click.option(
    "--epochs",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Of every method but those that train a supernet: theirs is supernet.epochs.",
)
sweep = click.option("--sweep/--no-sweep", default=True, help="Choose each learning rate by val.")
out = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the tables as JSON and Markdown, and the picture as HTML.",
)


def show(comparison: Comparison, out: Path | None, as_json: bool) -> None:
    """Print a comparison, and write it below `out` if that is given."""
    from glora_search.cli.bench_tables import comparison_output
    from glora_search.operations.reports import write_comparison

    shown = comparison_output(comparison)
    if out is not None:
        write(out, "comparison", shown)
        write_comparison(shown.document, out / "comparison.html")
        tell(f"written: {out / 'comparison'}.json, .md and .html")
    shown.show(as_json)


def write(folder: Path, name: str, shown: Output) -> None:
    """Write what is shown below a folder, as JSON and in Markdown with the command that made it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(shown.document, indent=1) + "\n")
    known = shown.document.get("versions", {})
    versions = ", ".join(f"{package} {version}" for package, version in known.items())
    made = "\n".join(["", f"    {_command()}", *(["", versions] if versions else []), ""])
    (folder / f"{name}.md").write_text(shown.markdown() + made)


def _command() -> str:
    """As it was given, without the database: its URL changes no figure and may hold a password."""
    words = iter(sys.argv[1:])
    kept = ["glora-search"]
    for word in words:
        if word == "--storage":
            next(words, None)
        elif not word.startswith("--storage="):
            kept.append(word)
    return shlex.join(kept)
