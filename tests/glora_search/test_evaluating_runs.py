"""How a batch is cut, whom a dead worker is blamed on, and what a worker reports when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from stand_in_scorers import SPACE, Figures, StandIn, candidates, loss_of

from glora_search.evaluating import ray_worker
from glora_search.evaluating.ray_worker import Worker
from glora_search.evaluating.results import score_run
from glora_search.evaluating.runs import Batch
from search_spaces import SubnetConfig

GENOMES = {k: SPACE.encode(c.subnet) for k, c in enumerate(candidates(50))}


def take_all(batch: Batch, workers: int) -> list[list[int]]:
    runs = []
    while batch.waiting:
        runs.append(batch.take_run(workers))
    return runs


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 60])
def test_runs_hold_every_candidate_once_in_the_order_of_genomes(workers: int) -> None:
    """So that a run is a subtree of the batch, and its members share their first blocks."""
    runs = take_all(Batch(GENOMES, max_tries=2), workers)
    taken = [position for run in runs for position in run]
    assert sorted(taken) == list(range(50))
    assert [GENOMES[p] for p in taken] == sorted(GENOMES.values())


def test_runs_shrink_to_single_candidates() -> None:
    """Nobody is left with a long run when the others have nothing to do."""
    sizes = [len(run) for run in take_all(Batch(GENOMES, max_tries=2), 2)]
    assert sizes == [25, 13, 6, 3, 2, 1]
    assert len(take_all(Batch(GENOMES, max_tries=2), 1)) == 1, "one worker shares everything"


@pytest.mark.parametrize(("pace_s", "sizes"), [(0.0, [25, 25]), (0.002, [25, 13, 6, 5, 1])])
def test_fast_evaluations_are_not_sent_for_one_by_one(pace_s: float, sizes: list[int]) -> None:
    """A run is worth its message, but never more than a fair share of the batch."""
    batch = Batch(GENOMES, max_tries=2, pace_s=pace_s)
    assert [len(run) for run in take_all(batch, 2)] == sizes


def test_what_nobody_has_begun_is_taken_again_in_its_order() -> None:
    batch = Batch(GENOMES, max_tries=2)
    first, second = batch.take_run(2), batch.take_run(2)
    batch.give_back(second)
    batch.give_back(first)
    assert batch.take_run(2) == first


def test_a_run_that_died_is_under_suspicion_and_nobody_is_blamed() -> None:
    """What was queued behind it had not begun, and is an ordinary run again."""
    batch = Batch(GENOMES, max_tries=1)
    first, second = batch.take_run(2), batch.take_run(2)
    assert batch.blame([first[3:], second]) is None
    assert list(batch.suspects) == first[3:]
    assert batch.take_run(1)[:13] == second
    assert all(batch.deaths(p) == 0 for p in GENOMES)


def test_a_death_that_leaves_no_doubt_counts() -> None:
    """One candidate was under way and nothing else; at max_tries it is given up."""
    batch = Batch(GENOMES, max_tries=2)
    assert batch.blame([[], [7]]) is None
    assert (batch.deaths(7), list(batch.suspects)) == (1, [7])
    batch.suspects.clear()
    assert batch.blame([[7]]) == 7
    assert not batch.suspects


def test_one_of_a_run_is_not_blamed_for_a_death_with_another_run_behind_it() -> None:
    batch = Batch(GENOMES, max_tries=1)
    assert batch.blame([[7], [8]]) is None
    assert list(batch.suspects) == [7]


def test_a_death_with_nothing_under_way_is_nobodys_fault() -> None:
    batch = Batch(GENOMES, max_tries=1)
    assert batch.blame([]) is None
    assert batch.blame([[], []]) is None
    assert not batch.suspects


class Clocked(StandIn):
    """Evaluations that take their time by a clock of the test's own."""

    def __init__(self, eval_s: float) -> None:
        super().__init__(eval_s=eval_s)
        object.__setattr__(self, "now", [0.0])

    def evaluate_each(self, subnets: Sequence[SubnetConfig]) -> Iterator[tuple[int, Figures]]:
        for position, subnet in enumerate(subnets):
            self.now[0] += self.eval_s
            yield position, Figures(loss_of(subnet))


def loaded(monkeypatch: pytest.MonkeyPatch, eval_s: float) -> Worker:
    package, worker = Clocked(eval_s), Worker()
    monkeypatch.setattr(ray_worker.time, "perf_counter", lambda: package.now[0])
    worker.load(package)
    return worker


@pytest.mark.parametrize(
    ("eval_s", "sizes"), [(20.0, [1] * 10), (0.02, [3, 3, 3, 1]), (0.001, [10])]
)
def test_slow_results_are_reported_one_by_one_and_fast_ones_together(
    monkeypatch: pytest.MonkeyPatch, eval_s: float, sizes: list[int]
) -> None:
    """Minutes of work never wait in a worker; a message a candidate would cost more than one."""
    worker = loaded(monkeypatch, eval_s)
    reports = list(worker.evaluate(0, [GENOMES[k] for k in range(10)]))
    assert [len(report) for report in reports] == sizes
    results = [result for report in reports for result in report]
    assert [r.position for r in results] == list(range(10))
    assert [r.loss for r in results] == [loss_of(SPACE.decode(GENOMES[k])) for k in range(10)]


def test_a_stopped_run_ends_with_the_evaluation_that_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that had not begun does not begin; the next one is whole."""
    worker = loaded(monkeypatch, 20.0)
    run = [GENOMES[k] for k in range(10)]
    reports = worker.evaluate(4, run)
    next(reports)
    worker.stop(5)
    assert len(list(reports)) == 0
    assert list(worker.evaluate(5, run)) == []
    assert len(list(worker.evaluate(6, run))) == 10


def test_a_scorer_that_leaves_subnets_out_is_told() -> None:
    """Otherwise the search would wait for them for ever."""

    class Forgetful(StandIn):
        def evaluate_each(self, subnets: Sequence[SubnetConfig]) -> Iterator[tuple[int, Figures]]:
            yield 1, Figures(0.5)

    subnets = [c.subnet for c in candidates(3)]
    with pytest.raises(RuntimeError, match="2 of 3 subnets were not evaluated"):
        list(score_run(Forgetful(), subnets))
