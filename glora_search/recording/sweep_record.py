"""A sweep in the database. It tries recipes for the supernet of a study.

A sweep is an Optuna study of its own, called `<study>/sweep`; our studies cannot have such a name.
Each trial is one recipe. A trial takes minutes or hours, so each is written by Optuna's public
calls when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from glora_search.recording.connection import Connection
from glora_search.recording.patience import PATIENCE_S, Patience
from glora_search.recording.study_record import StudyRecord
from glora_search.study.errors import DamagedStudyError
from glora_search.study.sweep_trial import State, SweepTrial

SUFFIX: Final = "/sweep"
"""A sweep's name is its study's name with this suffix."""

SPACE_KEY: Final = "sweep_space"
"""The attribute that holds the distributions of the swept keys."""

_ID: Final = "id"
_STATES: Final[dict[State, TrialState]] = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_WORDS: Final = {state: word for word, state in _STATES.items()}

Distributions = Mapping[str, BaseDistribution]


def space_to_attribute(space: Distributions) -> dict[str, str]:
    """The distributions, as they are stored."""
    return {name: distribution_to_json(d) for name, d in space.items()}


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """A sweep as `status` shows it.

    Args:
        name: The sweep's name.
        trials: Optuna's trial number to trial.
        attributes: What was stored with the sweep.
        held_by: The process that drives it now; None if there is none.
    """

    name: str
    trials: Mapping[int, SweepTrial]
    attributes: Mapping[str, Any]
    held_by: str | None

    @property
    def n_failed(self) -> int:
        """How many of the trials failed."""
        return sum(trial.state == "failed" for trial in self.trials.values())

    @property
    def best(self) -> tuple[int, SweepTrial] | None:
        """Number and trial of the best one that trained to the end; None if none has."""
        complete = [item for item in self.trials.items() if item[1].state == "complete"]
        return min(complete, key=lambda item: item[1].rank, default=None)


class SweepRecord:
    """One sweep. Made by `Database.create_sweep` and `Database.open_sweep`.

    Attributes:
        study: The attributes and the lease, as of any study.
    """

    def __init__(self, connection: Connection, study: StudyRecord) -> None:
        self.study = study
        self._connection = connection
        self._patience = Patience(PATIENCE_S)
        with connection.errors():
            self._optuna = optuna.load_study(study_name=study.name, storage=connection.storage)

    @property
    def name(self) -> str:
        """The sweep's name: the study's name with the suffix."""
        return self.study.name

    def add(self, trial: SweepTrial) -> None:
        """Record a trial that has ended. A trial that is recorded already is not changed.

        If the database is away, this waits for it.

        Raises:
            StudyHeldError: Outside of `study.hold`, or the lease was lost to another process.
            StorageError: The database fails.
        """
        self._patience.attempt(lambda: self._add(trial))

    def trials(self) -> dict[int, SweepTrial]:
        """All recorded trials by Optuna's trial number.

        Raises:
            DamagedStudyError: A trial cannot be read.
            StorageError: The database fails.
        """
        return {trial.number: self._decode(trial) for trial in self.frozen_trials()}

    def frozen_trials(self) -> list[FrozenTrial]:
        """All recorded trials, in the form that Optuna's samplers read."""
        with self._connection.errors():
            trials = self._optuna.get_trials(deepcopy=False, states=tuple(_WORDS))
        return [trial for trial in trials if _ID in trial.user_attrs]

    def summary(self) -> SweepSummary:
        """The trials, the attributes and the holder of the lease."""
        holder = self.study.holder
        return SweepSummary(
            name=self.name,
            trials=self.trials(),
            attributes=self.study.attributes,
            held_by=None if holder is None else str(holder),
        )

    def _add(self, trial: SweepTrial) -> None:
        self.study.check_held()
        if any(each.user_attrs[_ID] == trial.id for each in self.frozen_trials()):
            return  # an earlier attempt was committed, but its answer got lost
        frozen = _encode(trial, self._space())
        with self._connection.errors():
            self._optuna.add_trial(frozen)

    def _decode(self, frozen: FrozenTrial) -> SweepTrial:
        attributes = frozen.user_attrs
        try:
            return SweepTrial(
                id=str(attributes[_ID]),
                recipe=frozen.params,
                state=_WORDS[frozen.state],
                losses=frozen.intermediate_values,
                top1=attributes.get("top1"),
                epochs=int(attributes["epochs_trained"]),
                train_s=float(attributes["train_s"]),
                worker=str(attributes["worker"]),
                error_type=attributes.get("error_type"),
                error=attributes.get("error"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedStudyError(
                f"{self.name!r}, trial {frozen.number} is damaged: {type(error).__name__}: {error}"
            ) from error

    def _space(self) -> dict[str, BaseDistribution]:
        stored: dict[str, str] = self.study.attributes[SPACE_KEY]
        return {name: json_to_distribution(text) for name, text in stored.items()}


def _encode(trial: SweepTrial, space: Distributions) -> FrozenTrial:
    attributes: dict[str, Any] = {
        _ID: trial.id,
        "epochs_trained": trial.epochs,
        "train_s": trial.train_s,
        "worker": trial.worker,
    }
    if trial.top1 is not None:
        attributes["top1"] = trial.top1
    if trial.state == "failed":
        attributes |= {"error_type": trial.error_type, "error": trial.error}
    frozen = optuna.trial.create_trial(
        state=_STATES[trial.state],
        value=None if trial.state == "failed" else trial.loss,
        params=dict(trial.recipe),
        distributions=dict(space),
        intermediate_values=dict(trial.losses),
        user_attrs=attributes,
    )
    frozen.datetime_complete = datetime.now()
    frozen.datetime_start = frozen.datetime_complete - timedelta(seconds=trial.train_s)
    return frozen
