"""How long steps report their progress: a protocol, and a silent implementation for libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Bar(Protocol):
    """One step under way."""

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Report the units done, a short note, and the total if it has changed."""
        ...


class Progress(Protocol):
    """Where long steps report to."""

    def bar(self, what: str, total: int) -> contextlib.AbstractContextManager[Bar]:
        """A step of `total` units; it is over at the end of the context."""
        ...

    def note(self, text: str) -> None:
        """One line that stays."""
        ...


class Silent:
    """Reports nothing: for use as a library."""

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield self

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
