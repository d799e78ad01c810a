"""Counts of trials: what is counted once is not counted again.

A trial of ours is written as it stays, and keys grow in the order of commits. So it is enough to
count the trials whose keys are above the last one that was counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from glora_search.recording.store import Tally
from glora_search.recording.trial_codec import MARK

_TRIALS: Final[sa.Table] = models.TrialModel.__table__
_VALUES: Final[sa.Table] = models.TrialValueModel.__table__
_ATTRIBUTES: Final[sa.Table] = models.TrialUserAttributeModel.__table__

ENDED: Final = (TrialState.COMPLETE, TrialState.FAIL)
"""The states of trials that hold an outcome."""


@dataclass(frozen=True)
class _Counted:
    """What was counted.

    Args:
        tally: Of the trials until the last one.
        key: Of the last one.
        number: Of the last one.
        ended: When the last one ended. Another study may be given the keys of one that was deleted,
            but hardly at the same microsecond.
    """

    tally: Tally
    key: int
    number: int
    ended: datetime | None


class Tallies:
    """The tallies of the studies of one database. Safe to use from several threads."""

    def __init__(self) -> None:
        self._counted: dict[int, _Counted] = {}

    def count(self, c: sa.Connection, study_id: int, *, higher_is_better: bool) -> Tally:
        """The tally of a study, as `StudyStore.tally` tells it.

        Args:
            c: A transaction.
            study_id: Optuna's key of the study.
            higher_is_better: Whether the best value is the highest.
        """
        before = self._still_there(c, study_id)
        best = sa.func.max if higher_is_better else sa.func.min
        query = (
            sa.select(
                _TRIALS.c.state,
                sa.func.count(),
                best(_VALUES.c.value),
                sa.func.max(_TRIALS.c.trial_id),
            )
            .join(
                _VALUES,
                sa.and_(_VALUES.c.trial_id == _TRIALS.c.trial_id, _VALUES.c.objective == 0),
                isouter=True,
            )
            .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state.in_(ENDED), marked())
            .group_by(_TRIALS.c.state)
        )
        if before is not None:
            query = query.where(_TRIALS.c.trial_id > before.key)
        found = {state: rest for state, *rest in c.execute(query)}
        if not found:
            return (
                Tally(n_complete=0, n_failed=0, best_value=None) if before is None else before.tally
            )
        n_complete, value, _ = found.get(TrialState.COMPLETE, (0, None, 0))
        n_failed, _, _ = found.get(TrialState.FAIL, (0, None, 0))
        tally = Tally(n_complete=n_complete, n_failed=n_failed, best_value=value)
        if before is not None:
            tally = _sum(before.tally, tally, higher_is_better=higher_is_better)
        self._keep(c, study_id, tally, max(key for *_, key in found.values()))
        return tally

    def _still_there(self, c: sa.Connection, study_id: int) -> _Counted | None:
        """What was counted of a study, unless another study has its key by now."""
        counted = self._counted.get(study_id)
        if counted is None:
            return None
        last = sa.select(_TRIALS.c.study_id, _TRIALS.c.number, _TRIALS.c.datetime_complete)
        row = c.execute(last.where(_TRIALS.c.trial_id == counted.key)).one_or_none()
        expected = (study_id, counted.number, counted.ended)
        return counted if row is not None and tuple(row) == expected else None

    def _keep(self, c: sa.Connection, study_id: int, tally: Tally, key: int) -> None:
        last = sa.select(_TRIALS.c.number, _TRIALS.c.datetime_complete)
        number, ended = c.execute(last.where(_TRIALS.c.trial_id == key)).one()
        self._counted[study_id] = _Counted(tally, key, number, ended)


def marked() -> sa.Exists:
    """Whether a trial is ours; others may have added trials to the study by other means."""
    return (
        sa.exists()
        .where(_ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id, _ATTRIBUTES.c.key == MARK)
        .correlate(_TRIALS)
    )


def _sum(one: Tally, other: Tally, *, higher_is_better: bool) -> Tally:
    values = [v for v in (one.best_value, other.best_value) if v is not None]
    return Tally(
        n_complete=one.n_complete + other.n_complete,
        n_failed=one.n_failed + other.n_failed,
        best_value=(max if higher_is_better else min)(values, default=None),
    )
