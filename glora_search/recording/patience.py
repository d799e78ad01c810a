"""Waits for a database that is away for a while.

A server restarts, a network breaks, or another process locks an SQLite file: the search logs it,
waits, and continues. Nothing is lost, because a transaction that did not commit is repeated.
Nothing is written twice, because a store accepts a repeated write without recording it again. That
also holds if the database committed the first one and only its answer was lost.
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
_LOOK_S: Final = 0.1  # how often a wait checks for an interruption


class Patience:
    """Repeats a call until it succeeds, for a bounded time. Safe to use from several threads.

    The time runs from the first failure after the last success, of whichever call. So if two
    writes follow one another while the database is away, the second does not get the whole time
    again. A signal that `shielded` holds back ends the wait.

    Args:
        limit_s: Seconds after the first failure within which a new attempt may begin.
    """

    def __init__(self, limit_s: float = PATIENCE_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def attempt(self, work: Callable[[], _T]) -> _T:
        """Call `work` until it succeeds, and return its result.

        Args:
            work: A call that may be repeated safely, even if an earlier attempt took effect.

        Raises:
            StorageUnavailableError: The error of the last attempt. Any other error is raised at
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
        """Note a failure; return the seconds that are left to wait."""
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
    """Wait; return whether no interruption came."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        if held_back():
            return False
        time.sleep(min(left_s, _LOOK_S))
    return not held_back()


class PatientStore:
    """A StudyStore that waits for the database in every call. It keeps the protocol's contract.

    Args:
        store: The store to call.
        patience: How long to wait.
    """

    def __init__(self, store: StudyStore, patience: Patience) -> None:
        self._store = store
        self._patience = patience

    def attributes(self) -> dict[str, Any]:  # noqa: D102 - told by StudyStore
        return self._patience.attempt(self._store.attributes)

    def set_attribute(self, key: str, value: JSON, *, token: str | None) -> None:  # noqa: D102
        self._patience.attempt(lambda: self._store.set_attribute(key, value, token=token))

    def append(self, outcomes: Sequence[Outcome], *, token: str) -> int:
        """As in StudyStore. Outcomes whose commit got no answer are not counted as new."""
        return self._patience.attempt(lambda: self._store.append(outcomes, token=token))

    def trials(self, since: int = 0) -> dict[int, Outcome]:  # noqa: D102
        return self._patience.attempt(lambda: self._store.trials(since))

    def outlines(self, since: int = 0) -> dict[int, Outcome]:  # noqa: D102
        return self._patience.attempt(lambda: self._store.outlines(since))

    def tally(self) -> Tally:  # noqa: D102
        return self._patience.attempt(self._store.tally)

    def values(self) -> list[float]:  # noqa: D102
        return self._patience.attempt(self._store.values)

    def evaluation_s(self, within_s: float) -> dict[str, float]:  # noqa: D102
        return self._patience.attempt(lambda: self._store.evaluation_s(within_s))

    def read_lease(self) -> tuple[str | None, float]:  # noqa: D102
        return self._patience.attempt(self._store.read_lease)

    def swap_lease(self, old: str | None, new: str) -> bool:
        """As in StudyStore. A swap whose commit got no answer is recognised by a second look."""
        tried = False

        def swap() -> bool:
            nonlocal tried
            before, tried = tried, True
            return self._store.swap_lease(old, new) or (
                before and self._store.read_lease()[0] == new
            )

        return self._patience.attempt(swap)
