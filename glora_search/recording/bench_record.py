"""A bench in the database. It compares methods on the data of a study.

A bench is an Optuna study of its own, called `<study>/compare`; our studies cannot have such a
name. Each trial is one run: its value is the val loss, its user attributes hold the rest. A run
takes seconds to hours, so each is written by Optuna's public calls when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from glora_search.recording.connection import Connection
from glora_search.recording.patience import PATIENCE_S, Patience
from glora_search.recording.study_record import StudyRecord

BENCH_SUFFIX: Final = "/compare"
"""A bench's name is its study's name with this suffix."""

_KEY: Final = "key"
_TABLE: Final = "result"


class BenchRecord:
    """One bench. Made by `Database.open_or_create_bench`.

    Attributes:
        study: The attributes and the lease, as of any study.
    """

    def __init__(self, connection: Connection, study: StudyRecord) -> None:
        self.study = study
        self._connection = connection
        self._patience = Patience(PATIENCE_S)
        with connection.errors():
            self._optuna = optuna.load_study(study_name=study.name, storage=connection.storage)

    def add(self, key: str, table: Mapping[str, Any], *, value: float | None) -> None:
        """Record a run that has ended. A run that is recorded already is not changed, unless it had
        failed: then the later result counts.

        If the database is away, this waits for it.

        Args:
            key: Identifies the run.
            table: The run's result, as JSON can hold it.
            value: The run's val loss; None if it failed.

        Raises:
            StudyHeldError: Outside of `study.hold`, or the lease was lost to another process.
            StorageError: The database fails.
        """
        self._patience.attempt(lambda: self._add(key, table, value))

    def runs(self) -> dict[str, dict[str, Any]]:
        """The result of every run by its key, the latest one.

        Raises:
            StorageError: The database fails.
        """
        return {key: trial.user_attrs[_TABLE] for key, trial in self._trials().items()}

    def _trials(self) -> dict[str, FrozenTrial]:
        with self._connection.errors():
            trials = self._optuna.get_trials(deepcopy=False)
        return {t.user_attrs[_KEY]: t for t in trials if _TABLE in t.user_attrs}

    def _add(self, key: str, table: Mapping[str, Any], value: float | None) -> None:
        self.study.check_held()
        recorded = self._trials().get(key)
        if recorded is not None and recorded.state == TrialState.COMPLETE:
            return  # an earlier attempt was committed, but its answer got lost
        trial = optuna.trial.create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            value=value,
            user_attrs={_KEY: key, _TABLE: dict(table)},
        )
        with self._connection.errors():
            self._optuna.add_trial(trial)
