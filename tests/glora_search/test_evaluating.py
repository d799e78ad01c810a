"""One contract for all evaluators: the same numbers everywhere, and no candidate lost."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from ray import cloudpickle
from tiny_study import found, study

from glora_search.errors import ClusterError
from glora_search.evaluating import Evaluator
from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.evaluating.package import EvaluationPackage
from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool, check_reachable
from glora_search.prepare import Materials, prepare
from glora_search.progress import Silent
from glora_search.records import Candidate
from search_spaces import LayerConfig, SubnetConfig
from supernet import Split, Supernet, evaluate_subnets


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
        )


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
def ray_workers() -> Iterator[RayWorkers]:
    workers = RayWorkers(None, WorkerPool(workers=2, max_tries=2))
    yield workers
    workers.close()


@pytest.fixture(scope="module", params=["in_process", "ray"])
def evaluator(request: pytest.FixtureRequest, bench: Bench) -> Evaluator:
    if request.param == "in_process":
        return InProcessEvaluator(bench.package())
    return request.getfixturevalue("ray_workers").evaluator(bench.package())


def test_numbers_are_those_of_the_supernet_itself(evaluator: Evaluator, bench: Bench) -> None:
    """To the last digit, so that it does not matter where a candidate is evaluated."""
    outcomes = sorted(evaluator.evaluate(bench.candidates), key=lambda o: o.candidate.place)
    expected = evaluate_subnets(
        bench.supernet, [c.subnet for c in bench.candidates], bench.materials.val, batch_size=32
    )
    assert [(o.loss, o.top1) for o in outcomes] == [(e.loss, e.top1) for e in expected]
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


def test_nothing_to_evaluate(evaluator: Evaluator) -> None:
    assert list(evaluator.evaluate([])) == []


def test_a_candidate_that_cannot_be_evaluated_is_an_outcome(
    evaluator: Evaluator, bench: Bench
) -> None:
    """It is told in one line, and the others are evaluated all the same."""
    foreign = candidate(99, SubnetConfig({"blocks.7.attn.qkv": LayerConfig()}))
    outcomes = list(evaluator.evaluate([bench.candidates[0], foreign, *bench.candidates[1:4]]))
    failed = [o for o in outcomes if o.failed]
    assert len(outcomes) == 5
    assert [(o.candidate, o.error_type) for o in failed] == [(foreign, "InvalidConfigError")]
    assert failed[0].error is not None
    assert "blocks.7.attn.qkv" in failed[0].error
    assert "\n" not in failed[0].error


def test_whoever_stops_early_can_begin_again(evaluator: Evaluator, bench: Bench) -> None:
    """An interrupted generation leaves the evaluator usable; no outcome of it shows up later."""
    first = next(iter(evaluator.evaluate(bench.candidates)))
    assert first.candidate in bench.candidates
    outcomes = list(evaluator.evaluate(bench.candidates[:3]))
    assert sorted(o.candidate.index for o in outcomes) == [0, 1, 2]


def test_a_loss_that_is_not_finite_is_a_failure(bench: Bench) -> None:
    """Recorded as one, not as a number."""
    package = bench.package()
    head = package.weights["head.bias"].copy()
    head[:] = float("nan")
    broken = EvaluationPackage(
        **{**vars(package), "weights": {**package.weights, "head.bias": head}}
    )
    (outcome,) = InProcessEvaluator(broken).evaluate(bench.candidates[:1])
    assert (outcome.error_type, outcome.loss, outcome.top1) == ("NonFiniteLossError", None, None)


def test_a_killed_worker_loses_nothing(ray_workers: RayWorkers, bench: Bench) -> None:
    """SIGKILL while candidates are under way: each has one outcome, with the same numbers."""
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


class DeadlySplit:
    """Images that end whoever reads them."""

    name, num_classes = "val", 3

    def __len__(self) -> int:
        return 1

    def to(self, device: object) -> DeadlySplit:
        return self

    def batches(self, batch_size: int) -> Iterator[None]:
        os._exit(1)


@pytest.mark.slow
def test_a_candidate_that_ends_its_workers_is_given_up(
    ray_workers: RayWorkers, bench: Bench
) -> None:
    """After max_tries it is a failure, and the evaluator is still there."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    evaluator = ray_workers.evaluator(bench.package(split=DeadlySplit()))
    (outcome,) = evaluator.evaluate(bench.candidates[:1])
    assert outcome.error_type == "WorkerDiedError"
    assert outcome.error is not None
    assert "2 times" in outcome.error


def test_more_than_the_cluster_has_is_refused_at_once(ray_workers: RayWorkers) -> None:
    """Ray itself would wait for ever; the message says what there is."""
    with pytest.raises(ClusterError, match=r"3 workers need 3 CPU and 3 GPU.*has 2 CPU and 0 GPU"):
        RayWorkers(None, WorkerPool(workers=3, gpus=1))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "somewhere"])
def test_no_ray_at_an_address(address: str) -> None:
    """One line at once; Ray itself would wait for minutes."""
    with pytest.raises(ClusterError, match=rf"no Ray at '{address}'|'{address}' is no address"):
        check_reachable(address)
