"""Studies as they grow: what is recorded is read once, and from then on only what is new.

The layers of subnets are read when somebody needs them, since they are most of a study's rows. An
outcome never changes once it is recorded, so it can be kept. Everything else (status, holder) is
read anew each time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from glora_search.operations.status import StudyStatus, status_of
from glora_search.recording import Database, Holder, StudyRecord
from glora_search.reporting.trials import in_search_order, pareto_front
from glora_search.study.errors import StudyNotFoundError
from glora_search.study.finalists import from_attributes, winner_of
from glora_search.study.objectives import OBJECTIVES
from glora_search.study.outcomes import Outcome

_MOST_OUTCOMES: Final = 200_000  # kept over all studies; each is some 2.5 kB


@dataclass(frozen=True, eq=False, kw_only=True)
class StudyView:
    """A study as it was when it was read.

    Args:
        record: The study in the database.
        attributes: What is stored with it.
        holder: The process that drives it; None where none does.
        trials: All outcomes by Optuna's number, numbers rising.
    """

    record: StudyRecord
    attributes: dict[str, Any]
    holder: Holder | None
    trials: dict[int, Outcome]

    @property
    def position(self) -> int:
        """The number that the next outcome will have at least; it only grows."""
        return 1 + next(reversed(self.trials.keys()), -1)

    @cached_property
    def status(self) -> StudyStatus:
        """How far it is."""
        return status_of(self.record, self.trials, self.attributes, self.holder)

    @cached_property
    def winner(self) -> int | None:
        """The number of the best trial; None before there is one."""
        finalists = from_attributes(self.attributes)
        return winner_of(self.trials, self.record.objectives, finalists)

    def front(self, measure: str) -> list[int]:
        """The trials that no other beats in `measure` with as few parameters, parameters rising.

        Args:
            measure: The name of an objective other than `params`.
        """
        if measure not in self._fronts:
            self._fronts[measure] = pareto_front(self.trials, OBJECTIVES[measure])
        return self._fronts[measure]

    @cached_property
    def _fronts(self) -> dict[str, list[int]]:
        return {}

    def with_digest(self, digest: str) -> list[int]:
        """The numbers of the trials of a subnet.

        Args:
            digest: At least the first eight characters of its digest.
        """
        found = self.trials.items()
        return [n for n, o in found if o.candidate.subnet.digest.startswith(digest)]

    @cached_property
    def improvements(self) -> list[tuple[int, int]]:
        """In the order of the search each trial that was better than all before: how many were
        evaluated by then, and its number.
        """
        found: list[tuple[int, int]] = []
        best: tuple[float, ...] | None = None
        complete = [(n, o) for n, o in in_search_order(self.trials).items() if not o.failed]
        for evaluated, (number, outcome) in enumerate(complete, start=1):
            rank = self.record.objectives.rank(outcome)
            if best is None or rank < best:
                best = rank
                found.append((evaluated, number))
        return found


class Followed:
    """One study, read again and again. Safe to use from several threads.

    Args:
        database: Where it is.
        name: The study's name.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._lock = threading.Lock()
        self._view: StudyView | None = None

    @property
    def kept(self) -> int:
        """How many outcomes are kept."""
        view = self._view
        return 0 if view is None else len(view.trials)

    def read(self) -> StudyView:
        """The study as it is now; the same object as before where nothing has changed.

        Raises:
            StudyNotFoundError: There is none of that name.
            StorageError: The database fails.
        """
        with self._lock:
            view = self._view
            if view is not None:
                view = self._grown(view)
            if view is None:
                record = self._database.open_study(self._name)
                view = StudyView(
                    record=record,
                    attributes=record.attributes,
                    holder=record.holder,
                    trials=record.outlines(),
                )
            self._view = view
            return view

    def _grown(self, view: StudyView) -> StudyView | None:
        """The study with what is new; None where it is not the same study any more."""
        record, last = view.record, view.position - 1
        attributes, holder = record.attributes, record.holder
        if attributes.get("study") != view.attributes.get("study"):
            return None  # deleted, and perhaps another one has its name or its key
        fresh = record.outlines(max(last, 0))
        if last >= 0 and fresh.pop(last, None) != view.trials[last]:
            return None
        if not fresh and attributes == view.attributes and _same(holder, view.holder):
            return view
        return StudyView(
            record=record,
            attributes=attributes,
            holder=holder,
            trials={**view.trials, **fresh} if fresh else view.trials,
        )


class FollowedStudies:
    """The studies of a database that somebody asked for lately. Safe to use from several threads.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._studies: OrderedDict[str, Followed] = OrderedDict()

    def read(self, name: str) -> StudyView:
        """A study as it is now; errors as in `Followed.read`."""
        with self._lock:
            followed = self._studies.setdefault(name, Followed(self._database, name))
            self._studies.move_to_end(name)
        try:
            return followed.read()
        except StudyNotFoundError:
            self.forget(name)
            raise
        finally:
            self._drop_oldest()

    def forget(self, name: str) -> None:
        """Keep nothing of a study."""
        with self._lock:
            self._studies.pop(name, None)

    def _drop_oldest(self) -> None:
        with self._lock:
            kept = sum(followed.kept for followed in self._studies.values())
            while kept > _MOST_OUTCOMES and len(self._studies) > 1:
                _, oldest = self._studies.popitem(last=False)
                kept -= oldest.kept


def _same(one: Holder | None, other: Holder | None) -> bool:
    """Whether it is the same lease; its renewal does not matter."""
    return (one and one.token) == (other and other.token)
