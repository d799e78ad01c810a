"""Which runs a bench consists of, on made-up results."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_search.bench.plan import SWEEP_SEED, BenchPlan, PowerPlan
from glora_search.bench.runs import OnTestSet, Run, RunResult

PLAN = BenchPlan(
    tasks=("a", "b"),
    methods=("lora", "glora-random", "glora-search"),
    seeds=2,
    lrs={"lora": (1e-3, 1e-2), "glora-search": (1e-3, 1e-2), "glora-random": (1e-3, 1e-2)},
    epochs={"lora": 5, "glora-search": 9, "glora-random": 9},
)


def result_of(run: Run) -> RunResult:
    """Of a made-up world in which task a likes the small rate and task b the large one."""
    good = (run.lr < 5e-3) == (run.task == "a")
    return RunResult(run=run, val_top1=0.8 if good else 0.7, val_loss=1.0, test_top1=0.5)


def complete(plan: BenchPlan, order: list[int] | None = None) -> dict[str, RunResult]:
    """Do what is ready until nothing is, picking among it as `order` says."""
    done: dict[str, RunResult] = {}
    picks = iter(order or [])
    while ready := plan.ready(done):
        run = ready[next(picks, 0) % len(ready)]
        done[run.key] = result_of(run)
    return done


def test_the_sweep_comes_first_and_chooses_the_rate_of_each_task() -> None:
    ready = PLAN.ready({})
    assert {run.role for run in ready} == {"sweep"}
    assert {run.seed for run in ready} == {SWEEP_SEED}
    done = complete(PLAN)
    finals = PLAN.results(done)
    assert {(r.run.task, r.run.lr) for r in finals} == {("a", 1e-3), ("b", 1e-2)}
    assert len(done) == PLAN.n_runs == 2 * (2 * 2 + 2 * 3)


@pytest.mark.slow
@given(st.lists(st.integers(0, 50), max_size=40))
def test_the_order_in_which_results_arrive_changes_nothing(order: list[int]) -> None:
    assert complete(PLAN, order) == complete(PLAN)


def test_a_random_subnet_waits_for_the_supernet_of_the_search() -> None:
    done: dict[str, RunResult] = {}
    while ready := PLAN.ready(done):
        done[ready[0].key] = result_of(ready[0])
        for run in PLAN.ready(done):
            if run.method == "glora-random":
                leader = dataclasses.replace(run, method="glora-search")
                assert leader.key in done
    alone = dataclasses.replace(PLAN, methods=("glora-random",))
    assert {run.role for run in alone.ready({})} == {"sweep"}


def test_one_rate_needs_no_sweep() -> None:
    plan = dataclasses.replace(PLAN, methods=("lora",), lrs={"lora": (1e-3,)})
    assert {run.role for run in plan.ready({})} == {"final"}
    assert plan.n_runs == 4


def test_only_methods_without_a_supernet_have_a_batch_of_their_own() -> None:
    """The paths of a supernet's step share a batch, so it is as large as its study says."""
    plan = dataclasses.replace(PLAN, batch_size=16)
    runs = [result.run for result in complete(plan).values()]
    assert {(run.method, run.batch_size) for run in runs} == {
        ("lora", 16),
        ("glora-random", None),
        ("glora-search", None),
    }
    assert not {run.key for run in runs if run.method == "lora"} & complete(PLAN).keys()


def test_a_failed_rate_is_not_chosen() -> None:
    plan = dataclasses.replace(PLAN, methods=("lora",), tasks=("a",))
    small, large = plan.ready({})
    done = {small.key: RunResult(run=small, error="x"), large.key: result_of(large)}
    assert {run.lr for run in plan.ready(done)} == {large.lr}


def test_what_was_asked_for_before_is_kept_when_more_is_asked_for() -> None:
    done = complete(PLAN)
    more = dataclasses.replace(PLAN, seeds=3)
    assert {run.seed for run in more.ready(done)} == {2}


def test_a_sweep_takes_a_list_that_there_is() -> None:
    """Where a seed chooses a list, there is none of the sweep's own seed."""
    plan = dataclasses.replace(PLAN, sweep_splits={"a": 2})
    splits = {(run.task, run.seed, run.split) for run in plan.ready({})}
    assert splits == {("a", SWEEP_SEED, 2), ("b", SWEEP_SEED, None)}


def test_other_test_sets_are_other_final_runs_after_the_same_sweep() -> None:
    plan = dataclasses.replace(PLAN, test_sets={"a": ("x", "y")})
    done = complete(plan)
    assert {r.run.test_sets for r in plan.results(done) if r.run.task == "a"} == {("x", "y")}
    fewer = dataclasses.replace(PLAN, test_sets={"a": ("x",)})
    assert fewer.sweeps(done) == []
    assert {run.task for run in fewer.ready(done)} == {"a"}


def test_a_plan_counts_its_own_runs_in_a_record_of_more() -> None:
    done = complete(dataclasses.replace(PLAN, seeds=3))
    part = dataclasses.replace(PLAN, tasks=("b",), methods=("lora",))
    assert len(part.mine(done)) == part.n_runs == 2 + 2


def test_power_takes_several_draws_with_several_trainings_each() -> None:
    plan = dataclasses.replace(PLAN, methods=("lora",))
    power = PowerPlan(plan=plan, splits=3)
    done: dict[str, RunResult] = {}
    while ready := power.ready(done):
        done[ready[0].key] = result_of(ready[0])
    assert len(done) == power.n_runs == len(power.mine(done)) == 2 * (2 + 3 * 2)
    assert {(run.split, run.seed) for run in power.finals(done)} == {
        (split, seed) for split in range(3) for seed in range(2)
    }


def test_results_survive_json() -> None:
    plan = dataclasses.replace(PLAN, test_sets={"a": ("x", "y")})
    tested = {"x": OnTestSet(loss=1.0, top1=0.5, n_images=7)}
    for result in complete(plan).values():
        result = dataclasses.replace(result, by_test_set=tested)
        assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_result_of_before_there_were_test_sets_is_read() -> None:
    table = result_of(PLAN.ready({})[0]).to_json()
    del table["by_test_set"], table["test_sets"]
    assert RunResult.from_json(table) == result_of(PLAN.ready({})[0])
