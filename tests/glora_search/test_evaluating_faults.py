"""Workers that die, in many ways: no candidate is lost, none has two outcomes, none is blamed
wrongly.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_scorers import StandIn, candidates, loss_of

from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool
from glora_search.study.errors import ClusterError
from glora_search.study.outcomes import Candidate, Outcome

CANDIDATES = candidates(40)


@pytest.fixture(scope="module")
def ray_workers(shared_ray: str) -> Iterator[RayWorkers]:
    workers = RayWorkers(shared_ray, WorkerPool(workers=2, max_tries=2))
    yield workers
    workers.close()


def check(outcomes: list[Outcome], given_up: list[Candidate]) -> None:
    """One outcome each; those given up say so, the others have their own numbers."""
    by_index = sorted(outcomes, key=lambda o: o.candidate.place)
    assert [o.candidate for o in by_index] == CANDIDATES
    assert [o.candidate for o in by_index if o.failed] == given_up
    for outcome in by_index:
        if outcome.failed:
            assert outcome.error_type == "WorkerDiedError"
            assert "died 2 times" in str(outcome.error)
        else:
            assert outcome.loss == loss_of(outcome.candidate.subnet)


@pytest.mark.parametrize("deadly", [[23], [5, 6]])
def test_a_candidate_that_ends_its_workers_is_given_up_and_its_neighbours_are_not(
    ray_workers: RayWorkers, deadly: list[int]
) -> None:
    """Two workers begin with runs of 20 and 10: nobody is blamed for standing beside a killer."""
    killers = [CANDIDATES[k] for k in deadly]
    digests = frozenset(c.subnet.digest for c in killers)
    evaluator = ray_workers.evaluator(StandIn(deadly=digests))
    check(list(evaluator.evaluate(CANDIDATES)), killers)
    check(list(evaluator.evaluate(CANDIDATES)), killers)  # and it is there as before


def test_one_killed_among_a_supply_loses_nothing(ray_workers: RayWorkers, tmp_path: Path) -> None:
    """As below, where candidates are drawn one by one as workers have room; those that are left
    wait until the next worker has come.
    """
    gate = tmp_path / "gate"
    outcomes: list[Outcome] = []
    for outcome in ray_workers.evaluator(StandIn(eval_s=0.06, gate=gate)).evaluate(
        iter(CANDIDATES)
    ):
        outcomes.append(outcome)
        if len(outcomes) == 3:
            os.kill(int(outcome.worker.split(":")[1]), signal.SIGKILL)
        if len({o.worker for o in outcomes}) > 2:
            gate.touch()
    check(outcomes, [])
    assert len({o.worker for o in outcomes}) > 2


def test_workers_killed_from_outside_lose_nothing(ray_workers: RayWorkers) -> None:
    """SIGKILL in the midst of a run, and again while what was left of it is tried one by one.

    The first kill blames nobody and the second one candidate, once: none is given up.
    """
    evaluator = ray_workers.evaluator(StandIn(eval_s=0.06))
    outcomes: list[Outcome] = []
    for outcome in evaluator.evaluate(CANDIDATES):
        outcomes.append(outcome)
        if len(outcomes) in (3, 11):
            os.kill(int(outcome.worker.split(":")[1]), signal.SIGKILL)
    check(outcomes, [])
    assert len({o.worker for o in outcomes}) > 2, "nobody was killed: this proves nothing"


def test_whoever_stops_early_stops_the_workers(ray_workers: RayWorkers, tmp_path: Path) -> None:
    """What is under way is left: the next batch does not wait for the rest of the last."""
    told = tmp_path / "evaluated"
    evaluator = ray_workers.evaluator(StandIn(eval_s=0.06, told=told))
    for first in evaluator.evaluate(CANDIDATES):
        assert first.candidate in CANDIDATES
        break
    again = list(evaluator.evaluate(CANDIDATES[:4]))
    assert sorted(o.candidate.index for o in again) == [0, 1, 2, 3]
    assert len(told.read_text().splitlines()) < 4 + 20, "a worker ended the run that nobody wants"


def test_stopping_again_and_again_leaves_the_workers_in_order(ray_workers: RayWorkers) -> None:
    """At any moment of a run, begun or not, ended or not; a call cancelled through Ray would now
    and then stop an actor for 30 s.
    """
    evaluator = ray_workers.evaluator(StandIn())
    for _ in range(50):
        next(iter(evaluator.evaluate(CANDIDATES)))
    check(list(evaluator.evaluate(CANDIDATES)), [])


def test_a_package_that_cannot_be_loaded_is_told(ray_workers: RayWorkers) -> None:
    evaluator = ray_workers.evaluator(StandIn(faulty_load=True))
    with pytest.raises(ClusterError, match="cannot load the supernet: told to fail"):
        list(evaluator.evaluate(CANDIDATES))


def test_workers_that_die_while_they_load_are_not_replaced_for_ever(
    ray_workers: RayWorkers,
) -> None:
    """No candidate is blamed: none had begun."""
    evaluator = ray_workers.evaluator(StandIn(deadly_load=True))
    with pytest.raises(ClusterError, match="workers die while they start"):
        list(evaluator.evaluate(CANDIDATES))
