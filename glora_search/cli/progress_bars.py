"""Progress on stderr: bars on a terminal, a line now and then where stderr is a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from glora_search.stages.progress import Bar, Progress


class TerminalProgress:
    """Bars on a terminal, by rich."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """A bar with elapsed and remaining time."""
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self._console) as progress:
            task = progress.add_task(what, total=total, note="")

            class _Bar:
                def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
                    progress.update(task, completed=done, note=note, total=total)

            yield _Bar()

    def note(self, text: str) -> None:
        """One line that stays, above the bars."""
        self._console.print(text, markup=False)


class LineProgress:
    """A line at the start, at the end, and at every tenth that took a while: for log files.

    Args:
        stream: Where to; stderr if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """A step told in lines."""
        outer, started, total_at_start = self, time.monotonic(), total

        class _Bar:
            total, tenth, told_at = total_at_start, 0, started

            def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
                self.total = self.total if total is None else total
                tenth, now = 10 * done // max(self.total, 1), time.monotonic()
                waited_s, finished = now - self.told_at, done >= self.total
                if finished or waited_s >= 30 or (tenth != self.tenth and waited_s >= 2):
                    self.tenth, self.told_at = tenth, now
                    told = f"{what}: {done}/{self.total}, {now - started:.0f} s {note}"
                    outer.note(told.rstrip())

        self.note(f"{what} ...")
        yield _Bar()

    def note(self, text: str) -> None:
        """One line."""
        print(text, file=self._stream, flush=True)


def for_stderr() -> Progress:
    """Bars where stderr is a terminal, else lines."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()
