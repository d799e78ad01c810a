"""Writes outcomes in batches, in a thread of its own, while the next candidates are evaluated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from glora_search.recording.shielding import shielded
from glora_search.study.outcomes import Outcome

_log = logging.getLogger(__name__)


class BatchWriter:
    """Collects outcomes and writes them in batches, in order, in a thread of its own.

    At most one batch is being written at a time. While it is written, the next batch grows. Once
    the next batch holds `hold_up_at` outcomes, or `flush_s` seconds have passed, `add` waits for
    the write to end.

    A SIGKILL or a power cut loses at most the batch that is being written and the outcomes that are
    still collected. These are fewer than `hold_up_at`, and none of them is older than the latest
    one by `flush_s` or more.

    If a write fails, its error is raised unchanged, by a later `add` or by the end of the context.
    At that end the unwritten outcomes are written once more, with all that have arrived
    since. So when the context has ended, either every outcome is written or an error was raised.

    Args:
        write: Makes a batch durable, or raises; a batch may be offered to it twice. Called by one
            thread at a time.
        flush_every: Outcomes after which a batch is handed over.
        flush_s: Seconds after which a batch is handed over, full or not. The clock is read only
            when an outcome arrives.
        hold_up_at: Outcomes that may be collected while a batch is being written; by default
            `flush_every`.
    """

    def __init__(
        self,
        write: Callable[[list[Outcome]], object],
        *,
        flush_every: int,
        flush_s: float,
        hold_up_at: int | None = None,
    ) -> None:
        self._write, self._flush_every, self._flush_s = write, flush_every, flush_s
        self._hold_up_at = hold_up_at or flush_every
        self._arrived: list[Outcome] = []
        self._since = time.monotonic()
        self._under_way: list[Outcome] = []
        self._writing: Future[object] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch writer")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with shielded():  # an interruption waits until everything is written
            failure = None if self._writing is None else self._writing.exception()
            self._thread.shutdown()
            left = [*self._under_way, *self._arrived] if failure else self._arrived
            if left:
                self._write(left)
        if failure is not None and error is None:
            raise failure
        if failure is not None and error is not failure:
            _log.warning("a batch was written at the second attempt: %s", failure)

    def add(self, outcome: Outcome) -> None:
        """Collect an outcome, and hand the batch to the writing thread if it is due.

        Raises:
            BaseException: What an earlier batch's write raised.
        """
        self._arrived.append(outcome)
        if self._is_free:
            self._settle()
        waited_s = time.monotonic() - self._since
        enough = self._flush_every if self._is_free else self._hold_up_at
        if len(self._arrived) >= enough or waited_s >= self._flush_s:
            self._hand_over()

    def offer(self) -> None:
        """Hand over what has arrived, unless a batch is being written. Called before slow steps.

        Raises:
            BaseException: What an earlier batch's write raised.
        """
        if self._arrived and self._is_free:
            self._hand_over()

    @property
    def _is_free(self) -> bool:
        return self._writing is None or self._writing.done()

    def _hand_over(self) -> None:
        self._settle()
        with shielded():  # so that each outcome is always in one of the two lists
            self._under_way, self._arrived = self._arrived, []
            self._writing = self._thread.submit(self._write, self._under_way)
        self._since = time.monotonic()

    def _settle(self) -> None:
        """Wait until the current batch is written; raise what its write raised."""
        if self._writing is None:
            return
        failure = self._writing.exception()  # an interruption here changes nothing
        if failure is not None:
            raise failure
        self._writing = None
