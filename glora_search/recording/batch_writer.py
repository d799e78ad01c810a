"""Batches written behind the back of a search: the next candidates are evaluated meanwhile."""

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

    What a SIGKILL or a power cut may lose is bounded: the outcomes that are not handed over yet
    (fewer than `hold_up_at`, and none that arrived `flush_s` before the latest one) and the one
    batch that is being written. A batch that is due while the one before it is still being written
    grows until it is through; at `hold_up_at` the search waits as well: no more than one is ever
    under way.

    An error of a write is raised, as it is, where the next outcome is added, or at the end. What it
    left unwritten is then offered once more, with all that has arrived since, as the context ends.
    However it ends, everything that was added has been written, or the error is raised.

    Args:
        write: Makes a batch durable, or raises; a batch may be offered to it twice. Called by one
            thread at a time.
        flush_every: Outcomes after which a batch is handed over.
        flush_s: Seconds after which a batch is handed over, full or not; looked at as outcomes
            arrive.
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
        with shielded():  # an interruption has to wait until all is written
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
        """Take an outcome; hand over the batch if it is due.

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
        """Hand over what has arrived, unless a batch is being written: something slow may follow.

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
        with shielded():  # an outcome is in one of the two lists, whatever happens
            self._under_way, self._arrived = self._arrived, []
            self._writing = self._thread.submit(self._write, self._under_way)
        self._since = time.monotonic()

    def _settle(self) -> None:
        """Wait for the batch under way; raises what its write raised."""
        if self._writing is None:
            return
        failure = self._writing.exception()  # may be interrupted: nothing has changed by then
        if failure is not None:
            raise failure
        self._writing = None
