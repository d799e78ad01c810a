"""A database that is away for a while is waited for.

A server is restarted, a network breaks, another process keeps an SQLite file locked: the search
waits, and says so, and goes on. Nothing is lost, since a transaction that did not commit is made
again, and nothing is written twice, since whatever a store writes may be offered to it again: also
where the database did commit and only its answer was lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from glora_search.recording.shielding import held_back
from glora_search.recording.store import StudyStore, Tally
from glora_search.recording.trial_codec import JSON
from glora_search.study.errors import StorageUnavailableError
from glora_search.study.outcomes import Outcome

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PATIENCE_S: Final = 300.0
"""Seconds for which a database may be away before a search gives up."""

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
_LOOK_S: Final = 0.1  # how often a wait looks for an interruption


class Patience:
    """Tries again until it succeeds, for a bounded time. Safe to use from several threads.

    The time counts from the first failure since the last success, whoever has it: of two writes
    that follow one another while the database is away, the second does not wait as long again. A
    signal that `shielded` holds back ends the waiting.

    Args:
        limit_s: Seconds after the first failure within which an attempt may begin.
    """

    def __init__(self, limit_s: float = PATIENCE_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def attempt(self, work: Callable[[], _T]) -> _T:
        """What `work` returns, once it does.

        Args:
            work: Something that may be done again where it may have been done already.

        Raises:
            StorageUnavailableError: What the last attempt raised. Every other error is raised at
                once.
        """
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                result = work()
            except StorageUnavailableError as error:
                left_s = self._failed(error)
                if left_s <= 0 or not _waited(min(wait_s, left_s)):
                    raise
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                self._succeeded()
                return result

    def _failed(self, error: StorageUnavailableError) -> float:
        """Seconds that are left to wait."""
        now = time.monotonic()
        with self._lock:
            if self._away_since is None:
                self._away_since = now
                _log.warning("%s; trying again for up to %g s", error, self._limit_s)
            return self._away_since + self._limit_s - now

    def _succeeded(self) -> None:
        with self._lock:
            since, self._away_since = self._away_since, None
        if since is not None:
            _log.warning("the database answers again after %.0f s", time.monotonic() - since)


def _waited(seconds: float) -> bool:
    """Whether the wait went by without an interruption."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        if held_back():
            return False
        time.sleep(min(left_s, _LOOK_S))
    return not held_back()


class PatientStore:
    """A StudyStore whose calls wait for the database. The contract is that of the protocol.

    Args:
        store: The store that is called.
        patience: For how long.
    """

    def __init__(self, store: StudyStore, patience: Patience) -> None:
        self._store = store
        self._patience = patience

    def attributes(self) -> dict[str, Any]:  # noqa: D102 - told by StudyStore
        return self._patience.attempt(self._store.attributes)

    def set_attribute(self, key: str, value: JSON, *, token: str | None) -> None:  # noqa: D102
        self._patience.attempt(lambda: self._store.set_attribute(key, value, token=token))

    def append(self, outcomes: Sequence[Outcome], *, token: str) -> int:
        """As told by StudyStore; but what was committed without an answer counts as old."""
        return self._patience.attempt(lambda: self._store.append(outcomes, token=token))

    def trials(self) -> dict[int, Outcome]:  # noqa: D102
        return self._patience.attempt(self._store.trials)

    def tally(self) -> Tally:  # noqa: D102
        return self._patience.attempt(self._store.tally)

    def read_lease(self) -> tuple[str | None, float]:  # noqa: D102
        return self._patience.attempt(self._store.read_lease)

    def swap_lease(self, old: str | None, new: str) -> bool:
        """As told by StudyStore; one that was committed without an answer is found to be."""
        tried = False

        def swap() -> bool:
            nonlocal tried
            before, tried = tried, True
            return self._store.swap_lease(old, new) or (
                before and self._store.read_lease()[0] == new
            )

        return self._patience.attempt(swap)
