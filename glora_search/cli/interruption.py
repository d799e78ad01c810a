"""Ctrl-C and a polite kill, so that neither gets lost.

Python raises KeyboardInterrupt wherever it happens to be; in a destructor or a weak reference's
callback the interpreter prints it and goes on. So a request is also remembered, and progress bars,
which every long step moves, raise it again.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from glora_search.stages.progress import Bar, Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptible:
    """Within the context SIGINT and SIGTERM raise KeyboardInterrupt, at the latest at the next
    step.

    It is a `Progress` itself, and passes everything on to another.

    Args:
        progress: Where to report to.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._requested = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._request) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._requested:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """A bar that raises when a signal has come."""
        self.check()
        with self._progress.bar(what, total) as inner:
            yield _CheckedBar(self, inner)

    def note(self, text: str) -> None:
        """One line that stays."""
        self._progress.note(text)


class _CheckedBar:
    def __init__(self, interruptible: Interruptible, inner: Bar) -> None:
        self._interruptible, self._inner = interruptible, inner

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        self._interruptible.check()
        self._inner.update(done, note, total=total)
