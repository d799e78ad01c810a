"""A run of Ray Tune: Optuna proposes recipes, workers train, ASHA stops what lags behind.

Ray Tune has a process of its own: in the driver it would block, and take over SIGINT; through Ray's
client it would run on the cluster anyway. The process sends ended trials to the driver through a
queue, and only the driver uses the database. Only the workers need torch and timm.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from glora_search.cluster.connection import ray
from glora_search.operations.sweeping.recipes import step_of
from glora_search.study.errors import one_line
from glora_search.study.sweep_trial import State, SweepTrial

# Read by Ray Tune: nothing but the queue takes what it tells.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

_STEP: Final = "training_iteration"  # where OptunaSearch looks for it
_LOSS: Final = "loss"
_PERCENT: Final = "percent"
_ERROR: Final = "error"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """How far a trial is: percent of its epochs, and its mean val loss there."""

    percent: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run of Ray Tune is to do.

    Args:
        space: Swept key to its distribution.
        done: Trials that ended earlier, for the sampler.
        first: A recipe to begin with, if any.
        n: How many trials.
        concurrent: How many at once; None for as many as there is room for.
        seed: Of the sampler.
        grace: Percent of its epochs that every trial trains.
        reduction_factor: Of ASHA.
        cpus: For each trial.
        gpus: For each trial.
        max_restarts: How often a trial that lost its worker starts again.
    """

    space: dict[str, BaseDistribution]
    done: list[FrozenTrial]
    first: dict[str, float] | None
    n: int
    concurrent: int | None
    seed: int
    grace: float
    reduction_factor: int
    cpus: int
    gpus: float
    max_restarts: int


def run_tune(package: list[Any], plan: Plan, news: Any) -> None:
    """From the first trial to the last.

    Args:
        package: One reference to a `TrialPackage`.
        plan: What to do.
        news: A `ray.util.queue.Queue` that gets a `SweepTrial` for each trial that has ended, and
            a `Rung` for each that goes on.
    """
    resources: Any = tune.with_resources(_train, {"cpu": plan.cpus, "gpu": plan.gpus})
    with tempfile.TemporaryDirectory(prefix="glora-search-sweep-") as folder:
        tune.Tuner(
            tune.with_parameters(resources, package=package),
            tune_config=tune.TuneConfig(
                search_alg=make_search(plan),
                scheduler=make_scheduler(plan),
                num_samples=plan.n,
                max_concurrent_trials=plan.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=plan.max_restarts),
                callbacks=[_Telling(news)],
                verbose=0,
            ),
        ).fit()


def _train(config: dict[str, Any], package: list[Any]) -> None:
    from glora_search.operations.sweeping.trial import TrialPackage

    unpacked: TrialPackage = ray.get(package[0])
    unpacked.train(config, lambda report: tune.report(_without_none(asdict(report))))


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def make_scheduler(plan: Plan) -> ASHAScheduler:
    """ASHA, which has seen the trials that ended earlier."""
    scheduler = ASHAScheduler(
        time_attr=_PERCENT,
        metric=_LOSS,
        mode="min",
        max_t=100,
        grace_period=plan.grace,  # type: ignore[arg-type]  # a float is as good
        reduction_factor=plan.reduction_factor,
    )
    nobody: Any = None  # the controller that would be asked to stop them
    for trial in plan.done:
        if trial.state is TrialState.FAIL:
            continue
        stand_in: Any = SimpleNamespace(trial_id=f"earlier-{trial.number}")
        scheduler.on_trial_add(nobody, stand_in)
        for step, loss in sorted(trial.intermediate_values.items()):
            scheduler.on_trial_result(nobody, stand_in, {_PERCENT: step, _LOSS: loss})
        scheduler.on_trial_remove(nobody, stand_in)
    return scheduler


def make_search(plan: Plan) -> OptunaSearch:
    """Optuna's TPE, which knows the trials that ended earlier."""
    storage, name = optuna.storages.InMemoryStorage(), "sweep"
    study = optuna.create_study(storage=storage, study_name=name)
    study.add_trials(plan.done)
    return _Search(
        plan.space,
        metric=_LOSS,
        mode="min",
        points_to_evaluate=None if plan.first is None else [plan.first],
        sampler=optuna.samplers.TPESampler(seed=plan.seed),
        storage=storage,
        study_name=name,
    )


class _Search(OptunaSearch):
    """Tells Optuna percentages for steps, stopped trials as pruned ones, and failures.

    Ray's own takes the number of reports for the step, and a stopped trial for a complete one: its
    loss would count as that of a whole training.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if _ERROR not in result:
            step = step_of(result[_PERCENT])
            super().on_trial_result(trial_id, {**result, _STEP: step})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and _ERROR in result:
            result, error = None, True
        elif result:
            self.on_trial_result(trial_id, result)  # Ray Tune tells the last one here alone
            if result[_PERCENT] < 100:
                result = None  # pruned, to Optuna
        super().on_trial_complete(trial_id, result, error)


class _Telling(tune.Callback):
    """Puts into the queue what has ended, and how far the others are."""

    def __init__(self, news: Any) -> None:
        self._news = news
        self._losses: dict[str, dict[int, float]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._losses[trial.trial_id] = {}  # also where it starts again

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if _ERROR not in result:
            rung = Rung(percent=step_of(result[_PERCENT]), loss=result[_LOSS])
            self._losses[trial.trial_id][rung.percent] = rung.loss
            self._news.put(rung)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result
        if _ERROR in last:
            self._tell(trial, "failed", error_type=last["error_type"], error=last[_ERROR])
        else:
            self._tell(trial, "complete" if last[_PERCENT] >= 100 else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() or trial.get_error()
        cause = getattr(error, "cause", None) or error
        if cause is None:  # Ray Tune keeps none where the trial had not begun
            cause = ray.exceptions.ActorDiedError("its worker was lost before it had begun")
        text = one_line(cause, limit=500)
        self._tell(trial, "failed", error_type=type(cause).__name__, error=text)

    def _tell(self, trial: Any, state: State, **error: str) -> None:
        last, losses = trial.last_result or {}, self._losses.get(trial.trial_id, {})
        self._news.put(
            SweepTrial(
                id=uuid.uuid4().hex,
                recipe=dict(trial.config),
                state=state,
                losses=losses,
                top1=last.get("top1") if losses else None,
                epochs=last.get("epochs", 0),
                train_s=last.get("train_s", 0.0),
                worker=last.get("worker", ""),
                **error,
            )
        )
