"""One contract for all evaluators: the same numbers everywhere, and no candidate lost."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from tiny_study import found, study

from glora_search.cluster.reaching import check_reachable
from glora_search.evaluating import Evaluator
from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.evaluating.package import EvaluationPackage
from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool
from glora_search.stages.prepare import Materials, prepare
from glora_search.stages.progress import Silent
from glora_search.study.errors import ClusterError
from glora_search.study.outcomes import Candidate
from search_spaces import LayerConfig, SubnetConfig
from supernet import Split, SubnetEvaluator, Supernet, evaluate_subnets


@dataclass(frozen=True)
class Bench:
    """A supernet with weights that are not zero, its package, and candidates."""

    supernet: Supernet
    materials: Materials
    candidates: list[Candidate]

    def package(self, split: Split | None = None) -> EvaluationPackage:
        return EvaluationPackage.of(
            self.supernet,
            self.materials.architecture,
            split or self.materials.val,
            batch_size=32,
            precision="fp32",
            device="cpu",
            threads=1,
            calibrated=True,
        )


Form = Callable[[Sequence[Candidate]], Iterable[Candidate]]


def candidate(index: int, subnet: SubnetConfig) -> Candidate:
    return Candidate(
        generation=0, index=index, operator="random", parents=(), subnet=subnet, n_params=0
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    import torch

    folder = tmp_path_factory.mktemp("bench")
    materials = prepare(study(folder), Silent())
    supernet = Supernet(materials.backbone, materials.space).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in supernet.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    rng = random.Random(0)
    subnets = [materials.space.sample(rng) for _ in range(12)]
    return Bench(supernet, materials, [candidate(k, s) for k, s in enumerate(subnets)])


@pytest.fixture(scope="module")
def ray_workers(shared_ray: str) -> Iterator[RayWorkers]:
    workers = RayWorkers(shared_ray, WorkerPool(workers=2, max_tries=2))
    yield workers
    workers.close()


@pytest.fixture(scope="module", params=["in_process", pytest.param("ray", marks=pytest.mark.slow)])
def evaluator(request: pytest.FixtureRequest, bench: Bench) -> Evaluator:
    if request.param == "in_process":
        return InProcessEvaluator(bench.package())
    return request.getfixturevalue("ray_workers").evaluator(bench.package())


@pytest.fixture(params=["batch", "supply"])
def given(request: pytest.FixtureRequest) -> Form:
    """All at once, or one after the other as workers have room."""
    return list if request.param == "batch" else iter


@pytest.mark.slow
def test_numbers_are_those_of_the_supernet_itself(
    evaluator: Evaluator, bench: Bench, given: Form
) -> None:
    """To the last digit, so that it does not matter where a candidate is evaluated."""
    outcomes = sorted(evaluator.evaluate(given(bench.candidates)), key=lambda o: o.candidate.place)
    by_itself = SubnetEvaluator(bench.supernet, bench.materials.val, batch_size=32, calibrated=True)
    expected = [by_itself(candidate.subnet) for candidate in bench.candidates]
    assert [(o.loss, o.top1) for o in outcomes] == [(e.loss, e.top1) for e in expected]
    assert [o.calibrated_loss for o in outcomes] == [e.calibrated_loss for e in expected]
    assert all(o.calibrated_loss <= o.loss for o in outcomes)
    assert len({o.loss for o in outcomes}) > 6, "the candidates do not differ: this proves nothing"
    assert all(o.eval_s > 0 and ":" in o.worker and not o.failed for o in outcomes)


def test_each_candidate_has_one_outcome_whatever_came_before(
    evaluator: Evaluator, bench: Bench
) -> None:
    """In reversed order the same numbers: nothing of one candidate is left in the next."""
    once = found(sorted(evaluator.evaluate(bench.candidates), key=lambda o: o.candidate.place))
    again = found(
        sorted(evaluator.evaluate(bench.candidates[::-1]), key=lambda o: o.candidate.place)
    )
    assert once == again
    assert len(once) == len(bench.candidates)


def test_nothing_to_evaluate(evaluator: Evaluator, given: Form) -> None:
    assert list(evaluator.evaluate(given([]))) == []


def test_a_supply_is_drawn_from_when_a_worker_has_room(evaluator: Evaluator, bench: Bench) -> None:
    """So that a candidate can be made of all outcomes that have arrived by then."""
    workers = 1 if isinstance(evaluator, InProcessEvaluator) else 2
    n_arrived = 0
    arrived_at_draws = []

    def supply() -> Iterator[Candidate]:
        for each in bench.candidates:
            arrived_at_draws.append(n_arrived)
            yield each

    for _ in evaluator.evaluate(supply()):
        n_arrived += 1
    assert n_arrived == len(bench.candidates)
    assert 0 < arrived_at_draws.count(0) <= workers
    if workers == 1:
        assert arrived_at_draws == list(range(12))


def test_a_candidate_that_cannot_be_evaluated_is_an_outcome(
    evaluator: Evaluator, bench: Bench, given: Form
) -> None:
    """It is told in one line, and the others are evaluated all the same."""
    foreign = candidate(99, SubnetConfig({"blocks.7.attn.qkv": LayerConfig()}))
    mixed = [bench.candidates[0], foreign, *bench.candidates[1:4]]
    outcomes = list(evaluator.evaluate(given(mixed)))
    failed = [o for o in outcomes if o.failed]
    assert len(outcomes) == 5
    assert [(o.candidate, o.error_type) for o in failed] == [(foreign, "InvalidConfigError")]
    assert failed[0].error is not None
    assert "blocks.7.attn.qkv" in failed[0].error
    assert "\n" not in failed[0].error


def test_whoever_stops_early_can_begin_again(
    evaluator: Evaluator, bench: Bench, given: Form
) -> None:
    """An interrupted search leaves the evaluator usable; no outcome of it shows up later."""
    first = next(iter(evaluator.evaluate(given(bench.candidates))))
    assert first.candidate in bench.candidates
    outcomes = list(evaluator.evaluate(given(bench.candidates[:3])))
    assert sorted(o.candidate.index for o in outcomes) == [0, 1, 2]


def test_a_loss_that_is_not_finite_is_a_failure(bench: Bench) -> None:
    """Recorded as one, not as a number."""
    package = bench.package()
    weights = package.supernet.weights
    head = weights["head.bias"].copy()
    head[:] = float("nan")
    supernet = dataclasses.replace(package.supernet, weights={**weights, "head.bias": head})
    broken = dataclasses.replace(package, supernet=supernet)
    (outcome,) = InProcessEvaluator(broken).evaluate(bench.candidates[:1])
    assert (outcome.error_type, outcome.loss, outcome.top1) == ("NonFiniteLossError", None, None)


def test_a_killed_worker_loses_nothing(ray_workers: RayWorkers, bench: Bench) -> None:
    """SIGKILL while candidates are under way: each has one outcome, with the same numbers.

    test_evaluating_faults kills workers in more ways, with scorers that load at once.
    """
    evaluator = ray_workers.evaluator(bench.package())
    expected = evaluate_subnets(
        bench.supernet, [c.subnet for c in bench.candidates], bench.materials.val, batch_size=32
    )
    outcomes = []
    for outcome in evaluator.evaluate(bench.candidates):
        outcomes.append(outcome)
        if len(outcomes) == 3:
            os.kill(int(outcome.worker.split(":")[1]), signal.SIGKILL)
    outcomes.sort(key=lambda o: o.candidate.place)
    assert [o.candidate for o in outcomes] == bench.candidates
    assert [o.loss for o in outcomes] == [e.loss for e in expected]


def test_more_than_the_cluster_has_is_refused_at_once(ray_workers: RayWorkers) -> None:
    """Ray itself would wait for ever; the message says what there is."""
    with pytest.raises(ClusterError, match=r"3 workers need 3 CPU and 3 GPU.*has 2 CPU and 0 GPU"):
        RayWorkers(None, WorkerPool(workers=3, gpus=1))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "somewhere"])
def test_no_ray_at_an_address(address: str) -> None:
    """One line at once; Ray itself would wait for minutes."""
    with pytest.raises(ClusterError, match=rf"no Ray at '{address}'|'{address}' is no address"):
        check_reachable(address)
