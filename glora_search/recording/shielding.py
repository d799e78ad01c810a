"""Delays an interruption until a transaction has ended.

A KeyboardInterrupt within a transaction can leave its connection open while the exception
propagates. On SQLite that connection keeps its lock, and the lock blocks the flush that would save
the outcomes that have arrived.
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
_waiting: list[int] = []  # one list for the process, because signals go to the process


@contextmanager
def shielded() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM while the block runs, and deliver one of them at its end.

    Python handles signals in the main thread. In any other thread this does nothing.
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
            # None is a handler that was not set by Python; Python cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if arrived:
            _waiting.clear()
            os.kill(os.getpid(), arrived[0])


def held_back() -> bool:
    """Whether an interruption waits for the end of a shielded block. Any thread may ask."""
    return bool(_waiting)
