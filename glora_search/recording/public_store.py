"""The slow store. It uses only Optuna's public calls, and so works with every schema version.

Optuna has no calls for some of what the fast store promises:

- Each trial is a transaction of its own, not each batch. An interrupted flush leaves some whole
  trials.
- The lease is best effort. It is read, written and read again, so two processes that take it at the
  same instant can both believe that they hold it. It is checked before each trial, not in the
  trial's transaction.
- Speed: writing takes two hundred times as long, reading about fifty times
  (tests/benchmarks/bench_storage.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from glora_search.recording.connection import Connection
from glora_search.recording.lease import check_token
from glora_search.recording.store import LEASE_KEY, Tally
from glora_search.recording.trial_codec import JSON, MARK, decode, encode, unrecorded
from glora_search.study.errors import StorageError, StudyExistsError
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError, SearchSpace, SubnetConfig

_ENDED = (TrialState.COMPLETE, TrialState.FAIL)


def create_study(
    connection: Connection, name: str, *, objectives: Objectives, attributes: Mapping[str, JSON]
) -> None:
    """Create a study, then its attributes. If one cannot be written, the study is deleted again.

    Raises:
        StudyExistsError: Optuna has a study of that name.
    """
    with connection.errors():
        try:
            study = optuna.create_study(
                study_name=name,
                storage=connection.storage,
                directions=[o.direction for o in objectives.each],
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            raise StudyExistsError(f"study {name!r} exists in {connection.shown}") from error
        try:
            for key, value in attributes.items():
                study.set_user_attr(key, value)
        except BaseException:
            optuna.delete_study(study_name=name, storage=connection.storage)
            raise


class PublicStore:
    """A StudyStore on Optuna's public calls. The module docstring says what it cannot promise.

    Args:
        connection: The open database.
        name: The study's name.
        space: What the study's subnets are chosen from.
        objectives: What the study optimises.
    """

    def __init__(
        self, connection: Connection, *, name: str, space: SearchSpace, objectives: Objectives
    ) -> None:
        self._connection = connection
        self._name = name
        self._space = space
        self._objectives = objectives
        self._distributions: dict[str, BaseDistribution] = {
            gene.name: CategoricalDistribution(gene.choices) for gene in space.genes
        }
        with connection.errors():
            self._study = optuna.load_study(study_name=name, storage=connection.storage)

    def attributes(self) -> dict[str, Any]:  # noqa: D102 - told by StudyStore
        with self._connection.errors():
            return self._study.user_attrs

    def set_attribute(self, key: str, value: JSON, *, token: str | None) -> None:  # noqa: D102
        if token is not None:
            self._fence(token)
        with self._connection.errors():
            self._study.set_user_attr(key, value)

    def append(self, outcomes: Sequence[Outcome], *, token: str) -> int:  # noqa: D102
        trials = {outcome: self._frozen(outcome) for outcome in outcomes}
        recorded = {
            (trial.user_attrs[MARK], trial.user_attrs["index"]): trial.user_attrs["digest"]
            for trial in self._ours()
        }
        fresh = unrecorded(outcomes, recorded)
        self._fence(token)  # even if nothing is new
        for outcome in fresh:
            self._fence(token)
            with self._connection.errors():
                self._study.add_trial(trials[outcome])
        return len(fresh)

    def trials(self, since: int = 0) -> dict[int, Outcome]:  # noqa: D102
        ours = [trial for trial in self._ours() if trial.number >= since]
        return {trial.number: self._decode(trial) for trial in ours}

    outlines = trials  # Optuna reads all of a trial

    def tally(self) -> Tally:  # noqa: D102
        trials = self._ours()
        values = [trial.values[0] for trial in trials if trial.values]
        best = max if self._objectives.each[0].higher_is_better else min
        n_failed = sum(trial.state is TrialState.FAIL for trial in trials)
        return Tally(
            n_complete=len(trials) - n_failed,
            n_failed=n_failed,
            best_value=best(values, default=None),
        )

    def values(self) -> list[float]:  # noqa: D102
        return [trial.values[0] for trial in self._ours() if trial.values]

    def evaluation_s(self, within_s: float) -> dict[str, float]:  # noqa: D102
        since = datetime.now() - timedelta(seconds=within_s)
        ended = [t for t in self._ours() if t.datetime_complete and t.datetime_complete >= since]
        seconds: dict[str, float] = {}
        for attributes in (trial.user_attrs for trial in ended):
            worker = attributes["worker"]
            seconds[worker] = seconds.get(worker, 0.0) + attributes["eval_s"]
        return seconds

    def read_lease(self) -> tuple[str | None, float]:  # noqa: D102
        attributes = self.attributes()
        text = json.dumps(attributes[LEASE_KEY]) if LEASE_KEY in attributes else None
        return text, self._connection.now()

    def swap_lease(self, old: str | None, new: str) -> bool:  # noqa: D102
        if self.read_lease()[0] != old:
            return False
        with self._connection.errors():
            self._study.set_user_attr(LEASE_KEY, json.loads(new))
        return self.read_lease()[0] == new

    def _ours(self) -> list[FrozenTrial]:
        with self._connection.errors():
            trials = self._study.get_trials(deepcopy=False, states=_ENDED)
        return [trial for trial in trials if MARK in trial.user_attrs]

    def _fence(self, token: str) -> None:
        check_token(self.read_lease()[0], token=token, study=self._name)

    def _frozen(self, outcome: Outcome) -> FrozenTrial:
        genome = self._space.encode(outcome.candidate.subnet)
        trial = optuna.trial.create_trial(
            state=TrialState.FAIL if outcome.failed else TrialState.COMPLETE,
            values=self._objectives.values(outcome),
            params=dict(zip(self._distributions, genome, strict=True)),
            distributions=self._distributions,
            user_attrs=dict(encode(outcome)),
        )
        trial.datetime_complete = datetime.now()
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=outcome.eval_s)
        return trial

    def _decode(self, trial: FrozenTrial) -> Outcome:
        # Parameters that are no genes, such as those that somebody added, are left out.
        params = {name: v for name, v in trial.params.items() if name in self._distributions}
        try:
            return decode(trial.user_attrs, SubnetConfig.from_params(params))
        except (StorageError, InvalidConfigError) as error:
            raise StorageError(
                f"study {self._name!r}, trial {trial.number} is damaged: {error}"
            ) from error
