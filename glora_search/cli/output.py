"""What a verb prints: a table and lines for people, or one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

_WIDTH_WITHOUT_TERMINAL = 120


@dataclass(frozen=True, kw_only=True)
class Output:
    """The result of a verb.

    Args:
        document: As JSON.
        title: The table's heading.
        columns: The table's columns; those whose first value is a number are aligned to the right.
        rows: The table's cells, as text.
        lines: What to say below the table.
    """

    document: Any
    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()

    def show(self, as_json: bool) -> None:
        """Print it to stdout."""
        if as_json:
            click.echo(json.dumps(self.document, indent=2))
        else:
            self._render()

    def _render(self) -> None:
        from rich.console import Console
        from rich.table import Table

        width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
        console = Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty())
        if self.columns:
            table = Table(title=self.title or None, title_justify="left")
            for column, cells in zip(self.columns, zip(*self.rows, strict=True), strict=False):
                table.add_column(column, justify="right" if _is_number(cells[0]) else "left")
            for row in self.rows:
                table.add_row(*row)
            console.print(table)
        for line in self.lines:
            console.print(line, markup=False, soft_wrap=True)


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
