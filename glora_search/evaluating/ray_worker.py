"""The actor of a worker. It holds backbone, adapters and data, and evaluates one run at a time.

This module does not import torch. A package that needs torch imports it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Final

from glora_search.cluster.connection import WorkerPool, ray
from glora_search.evaluating.protocol import Package, SubnetScorer
from glora_search.evaluating.results import Result, score_run, worker_name
from search_spaces import Genome, SearchSpace

_REPORT_S: Final = 0.05


class Worker:
    """Scores subnets. Calls run in the order in which they are made, so `load` is the first."""

    def __init__(self) -> None:
        self._scorer: SubnetScorer | None = None
        self._space: SearchSpace | None = None
        self._unwanted = -1
        self._kept: dict[int, SimpleQueue[list[Result] | None]] = {}

    def warm_up(self) -> None:
        """Import what an `EvaluationPackage` needs."""
        import glora_search.evaluating.package  # noqa: F401

    def load(self, package: Package) -> str:
        """Build the scorer; returns this worker's name."""
        self._space = SearchSpace.from_json(package.space)
        self._scorer = package.unpack()
        return worker_name()

    @ray.method(concurrency_group="control")
    def stop(self, number: int) -> None:
        """Skip the rest of run `number` and of all earlier runs. This call has a thread of its own,
        so it runs while `evaluate` does.

        `ray.cancel` cannot replace it: if it cancels a call that has not reached the actor, the
        actor waits 30 s for that call (Ray 2.60).
        """
        self._unwanted = number

    def evaluate(self, number: int, genomes: Sequence[Genome]) -> Iterator[list[Result]]:
        """Yield the results of run `number`, in at most one message every 50 ms. A slow evaluation
        has a message of its own, fast ones share one.
        """
        if self._scorer is None or self._space is None:
            raise RuntimeError("the worker could not load the supernet")
        if number <= self._unwanted:
            return
        done: list[Result] = []
        reported = time.perf_counter()
        for result in score_run(self._scorer, [self._space.decode(g) for g in genomes]):
            done.append(result)
            if time.perf_counter() - reported >= _REPORT_S:
                yield done
                done, reported = [], time.perf_counter()
            if number <= self._unwanted:
                return
        if done:
            yield done

    def evaluate_and_keep(self, number: int, genomes: Sequence[Genome]) -> None:
        """As `evaluate`, for a driver that cannot read a stream. It calls `report` instead."""
        kept = self._kept.setdefault(number, SimpleQueue())
        try:
            for report in self.evaluate(number, genomes):
                kept.put(report)
        finally:
            kept.put(None)

    @ray.method(concurrency_group="reports")
    def report(self, number: int) -> list[Result] | None:
        """Wait for the next results of run `number` and return them; None at its end."""
        report = self._kept.setdefault(number, SimpleQueue()).get()
        if report is None:
            del self._kept[number]
        return report


def new_actor(pool: WorkerPool) -> Any:
    """A new actor of the pool. It starts in the background."""
    remote = ray.remote(concurrency_groups={"control": 1, "reports": 4})(Worker).options(  # type: ignore[call-overload]
        num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=0, max_concurrency=1
    )
    return remote.remote()
