"""An interruption waits until a transaction is over.

KeyboardInterrupt in the middle of one can leave a connection that nobody closes while the exception
is on its way, and on SQLite its lock keeps out the very flush that is to save what has arrived.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_waiting: list[int] = []  # of the process, as signals are


@contextmanager
def shielded() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM while the block runs, and deliver one of them at its end.

    Signals are handled in the main thread; in any other there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        _waiting.append(number)

    handlers = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None: it was set by what is not Python, and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if arrived:
            _waiting.clear()
            os.kill(os.getpid(), arrived[0])


def held_back() -> bool:
    """Whether an interruption waits until a shielded block is over; for any thread to ask."""
    return bool(_waiting)
