"""What Optuna and ASHA are told, of this run's trials and of those of earlier ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

SPACE = {"lr": FloatDistribution(1e-4, 1e-2, log=True)}
PLAN: dict[str, Any] = {
    "space": SPACE,
    "done": [],
    "first": None,
    "n": 4,
    "concurrent": 1,
    "seed": 0,
    "grace": 25.0,
    "reduction_factor": 2,
    "cpus": 1,
    "gpus": 0.0,
    "max_restarts": 0,
}


# Ray Tune takes its time: it is not imported by every process that collects these tests.
def make_search(**changes: Any) -> Any:
    """What asks Optuna, for the plan above with changes."""
    from glora_search.operations.sweeping import tuning

    return tuning.make_search(tuning.Plan(**{**PLAN, **changes}))


def make_scheduler(**changes: Any) -> Any:
    """What asks ASHA."""
    from glora_search.operations.sweeping import tuning

    return tuning.make_scheduler(tuning.Plan(**{**PLAN, **changes}))


def earlier(lr: float, losses: dict[int, float], *, failed: bool = False) -> FrozenTrial:
    state = TrialState.COMPLETE if 100 in losses else TrialState.PRUNED
    return optuna.trial.create_trial(
        state=TrialState.FAIL if failed else state,
        value=None if failed else losses[max(losses)],
        params={"lr": lr},
        distributions=SPACE,
        intermediate_values=losses,
    )


def told(percent: float, loss: float) -> dict[str, Any]:
    return {"percent": percent, "loss": loss, "training_iteration": 1}


def trials_of(search: Any) -> list[FrozenTrial]:
    return search._ot_study.get_trials(deepcopy=False)


def test_what_optuna_is_told() -> None:
    """Percent for steps; what ASHA stopped is pruned, and so does not count as a whole training."""
    search = make_search()
    for name in ("complete", "stopped", "diverged", "lost"):
        search.suggest(name)
    search.on_trial_result("complete", told(25.0, 1.5))
    search.on_trial_result("complete", told(50.0, 1.25))
    search.on_trial_complete("complete", told(100.0, 1.0))
    search.on_trial_complete("stopped", told(25.0, 0.5))
    search.on_trial_result("diverged", told(25.0, 3.0))
    search.on_trial_complete("diverged", {"loss": float("nan"), "error": "it diverged"})
    search.on_trial_complete("lost", error=True)
    complete, stopped, diverged, lost = trials_of(search)
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 1.0)
    assert complete.intermediate_values == {25: 1.5, 50: 1.25, 100: 1.0}
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {25: 0.5})
    assert diverged.state == lost.state == TrialState.FAIL
    assert search._ot_study.best_trial == complete


def test_a_sweep_begins_with_the_written_recipe() -> None:
    search = make_search(first={"lr": 5e-4})
    assert search.suggest("first") == {"lr": 5e-4}
    assert search.suggest("second") != {"lr": 5e-4}


def test_the_sampler_knows_earlier_trials() -> None:
    """Once there are enough of them it draws where they were good, which is near one end."""
    done = [earlier(1e-4 * 1.4**k, {100: float(k)}) for k in range(12)]
    informed, ignorant = make_search(done=done), make_search()
    drawn = [informed.suggest(f"trial {k}")["lr"] for k in range(20)]
    blind = [ignorant.suggest(f"trial {k}")["lr"] for k in range(20)]
    assert sum(lr < 4e-4 for lr in drawn) > sum(lr < 4e-4 for lr in blind) + 5
    assert [trial.params for trial in trials_of(informed)[:12]] == [t.params for t in done]


@pytest.mark.parametrize(
    ("done", "decision"),
    [
        ([], "CONTINUE"),
        ([earlier(1e-3, {25: 1.0, 50: 0.9, 100: 0.8})], "STOP"),
        ([earlier(1e-3, {25: 1.0})], "STOP"),
        ([earlier(1e-3, {25: 3.0, 50: 0.9, 100: 0.8})], "CONTINUE"),
        ([earlier(1e-3, {25: 1.0}, failed=True)], "CONTINUE"),
    ],
)
def test_asha_knows_earlier_trials(done: list[FrozenTrial], decision: str) -> None:
    """A trial with a loss of 2.0 after a quarter of its epochs, among what there was by then."""
    scheduler: Any = make_scheduler(done=done)
    trial = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, told(25.0, 2.0)) == decision
