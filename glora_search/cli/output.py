"""What a verb prints: a table and lines for people, or one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 120


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text.

    Args:
        title: Its heading.
        columns: Those whose first value is a number are aligned to the right.
        rows: The cells.
    """

    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def markdown(self) -> str:
        """The table in Markdown, its title above it."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        shown = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"{self.title}\n\n{shown}\n"


@dataclass(frozen=True, kw_only=True)
class Output(Table):
    """The result of a verb: a table, or none where it has no columns.

    Args:
        title: As of a table.
        columns: As of a table.
        rows: As of a table.
        document: As JSON.
        lines: What to say below the table.
        more: Further tables, below the lines.
    """

    document: Any
    lines: Sequence[str] = ()
    more: Sequence[Table] = ()

    def show(self, as_json: bool) -> None:
        """Print it to stdout."""
        if as_json:
            click.echo(json.dumps(self.document, indent=2))
        else:
            self._render()

    def markdown(self) -> str:
        """All tables and lines in Markdown."""
        parts = [super().markdown()] if self.columns else []
        if self.lines:
            parts.append("".join(f"- {line}\n" for line in self.lines))
        return "\n".join([*parts, *(table.markdown() for table in self.more)])

    def _render(self) -> None:
        from rich.console import Console

        width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
        console = Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty())
        if self.columns:
            _print(console, self)
        for line in self.lines:
            console.print(line, markup=False, soft_wrap=True)
        for table in self.more:
            console.print()
            _print(console, table)


def _print(console: Console, shown: Table) -> None:
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title=escape(shown.title) or None, title_justify="left")
    for column, cells in zip(shown.columns, zip(*shown.rows, strict=True), strict=False):
        grid.add_column(escape(column), justify="right" if _is_number(cells[0]) else "left")
    for row in shown.rows:
        grid.add_row(*map(escape, row))  # a word in brackets would be taken for a style
    console.print(grid)


def tell(line: str) -> None:
    """Print one line to stderr."""
    click.echo(line, err=True)


def tell_of_loading() -> None:
    """Importing torch, timm and ray takes seconds in which nothing else would be seen."""
    tell("loading torch, timm and ray ...")


def number(value: float | None, digits: int) -> str:
    """A figure of a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _is_number(text: str) -> bool:
    for part in (",", ".", " of ", "e-", " %"):
        text = text.replace(part, "")
    return text.isdigit() or text == "-"
