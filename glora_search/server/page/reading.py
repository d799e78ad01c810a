"""Read studies for the page: each outcome once in the life of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from glora_search.recording import StudyRecord
from glora_search.reporting.snapshot import Snapshot, snapshot_of
from glora_search.study.outcomes import Outcome

_KEPT: Final = 4


class Reader:
    """Snapshots of studies; outcomes that were read before are not read again. Safe to use from
    several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trials: OrderedDict[str, dict[int, Outcome]] = OrderedDict()

    def snapshot(self, record: StudyRecord) -> Snapshot:
        """The study as it is now.

        Raises:
            StorageError: The database fails.
        """
        with self._lock:  # readers of the same study wait for one another instead of reading twice
            known = self._trials.pop(record.name, {})
            trials = _up_to_date(record, known)
            self._trials[record.name] = trials
            while len(self._trials) > _KEPT:
                self._trials.popitem(last=False)
        return snapshot_of(record, dict(trials))


def _up_to_date(record: StudyRecord, known: dict[int, Outcome]) -> dict[int, Outcome]:
    trials = {**known, **record.trials(max(known, default=-1) + 1)}
    tally = record.tally()
    if known and len(trials) > tally.n_complete + tally.n_failed:
        return record.trials()  # deleted, and another study made under its name
    return trials


def max_failures(study: Any) -> int | None:
    """At how many failures a stored study file ends; None where that is not stored."""
    search = study.get("search") if isinstance(study, Mapping) else None
    found = search.get("max_failures") if isinstance(search, Mapping) else None
    return found if isinstance(found, int) else None
