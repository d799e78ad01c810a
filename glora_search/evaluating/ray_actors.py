"""The evaluator on a Ray cluster: actors that stay up, each holding backbone, adapters and data.

An actor is made once and fed one candidate after the other (726 calls a second where a Ray Tune trial
with reused actors reaches 13). Every actor has two candidates in flight, so that it never waits for the
driver. Weights and images are put into the object store once and mapped by every actor of a node.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from glora_search.errors import ClusterError
from glora_search.evaluating.package import EvaluationPackage, evaluate_candidate, failed_outcome
from glora_search.records import Candidate, Outcome

# Read by ray at its import: no usage report, and an actor without GPU leaves CUDA alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

_log = logging.getLogger(__name__)

_IN_FLIGHT: Final = 2  # candidates an actor holds: one that it evaluates, one that waits for it


@dataclass(frozen=True, kw_only=True)
class WorkerPool:
    """How many workers a search asks for, and what each takes.

    Args:
        workers: Actors, at least 1.
        cpus: Logical CPUs for each.
        gpus: GPUs for each; fractions share one.
        max_tries: How often a candidate may end its worker before it is given up.
        start_timeout_s: How long to wait for the first worker to come up.
    """

    workers: int
    cpus: int = 1
    gpus: float = 0.0
    max_tries: int = 3
    start_timeout_s: float = 300.0


def connect(address: str | None, pool: WorkerPool) -> None:
    """Connect this process to Ray: start one on this machine, or join the one at `address`.

    Args:
        address: None starts a Ray of just the size that `pool` needs; `auto` or `ray://host:port` joins.
        pool: What the search will ask for.

    Raises:
        ClusterError: There is no Ray at `address`, or it has too little for a single worker.
    """
    if not ray.is_initialized():
        options: dict[str, Any] = {
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "namespace": "glora-search",
        }
        if address is None:
            options |= {"num_cpus": pool.workers * pool.cpus}
        else:
            options = {"address": address, **options}
            del options["include_dashboard"]
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "on this machine" if address is None else f"at {address!r}"
            reason = " ".join(str(error).split())[:300]
            raise ClusterError(f"no Ray {where}: {reason}") from error
    total = ray.cluster_resources()
    needed = {"CPU": pool.workers * pool.cpus, "GPU": pool.workers * pool.gpus}
    lacking = [name for name, amount in needed.items() if amount > total.get(name, 0)]
    if lacking:
        has = ", ".join(f"{total.get(name, 0):g} {name}" for name in needed)
        raise ClusterError(
            f"{pool.workers} workers need {needed['CPU']:g} CPU and {needed['GPU']:g} GPU; the cluster "
            f"has {has}. Lower cluster.workers, cluster.cpus_per_worker or cluster.gpus_per_worker"
        )


def disconnect() -> None:
    """Leave Ray, and end it if `connect` has started it."""
    ray.shutdown()


class _Worker:
    """What runs in an actor."""

    def __init__(self, package: EvaluationPackage) -> None:
        self._evaluate = package.unpack()

    def evaluate(self, candidate: Candidate) -> Outcome:
        return evaluate_candidate(self._evaluate, candidate)


@dataclass(eq=False)
class _Seat:
    """A place for one actor; it is filled again when its actor dies."""

    actor: Any
    in_flight: dict[Any, Candidate] = field(default_factory=dict)


class RayEvaluator:
    """Evaluates on Ray actors; see `Evaluator`. Ray must be connected, see `connect`.

    Args:
        package: The supernet and the split.
        pool: Number and size of the workers.

    Raises:
        ClusterError: No worker came up: what each needs is not free.
    """

    def __init__(self, package: EvaluationPackage, pool: WorkerPool) -> None:
        self._pool = pool
        self._package = ray.put(package)
        self._make = ray.remote(_Worker).options(
            num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=0, max_concurrency=1
        )
        self._seats = [_Seat(self._new_actor()) for _ in range(pool.workers)]
        self._started = False

    def _new_actor(self) -> Any:
        return self._make.remote(self._package)

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        """Outcomes as the actors give them."""
        waiting = deque(candidates)
        tries = dict.fromkeys(candidates, 0)
        try:
            while waiting or any(seat.in_flight for seat in self._seats):
                self._feed(waiting)
                yield from self._collect(waiting, tries)
        finally:
            for seat in self._seats:  # whoever stopped early does not want the rest
                for reference in seat.in_flight:
                    ray.cancel(reference)
                seat.in_flight.clear()

    def _feed(self, waiting: deque[Candidate]) -> None:
        for _ in range(_IN_FLIGHT):  # breadth first: every actor has one before any has two
            for seat in self._seats:
                if waiting and len(seat.in_flight) < _IN_FLIGHT:
                    candidate = waiting.popleft()
                    seat.in_flight[seat.actor.evaluate.remote(candidate)] = candidate

    def _collect(self, waiting: deque[Candidate], tries: dict[Candidate, int]) -> Iterator[Outcome]:
        references = {ref: seat for seat in self._seats for ref in seat.in_flight}
        timeout = None if self._started else self._pool.start_timeout_s
        ready, _ = ray.wait(list(references), num_returns=1, timeout=timeout)
        if not ready:
            raise ClusterError(
                f"no worker came up in {self._pool.start_timeout_s:g} s; free are "
                f"{ray.available_resources().get('CPU', 0):g} CPU and "
                f"{ray.available_resources().get('GPU', 0):g} GPU"
            )
        self._started = True
        for reference in ready:
            seat = references[reference]
            if reference not in seat.in_flight:
                continue  # its actor died while an earlier one of these was looked at
            try:
                outcome: Outcome = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                yield from self._bury(seat, error, waiting, tries)
                continue
            del seat.in_flight[reference]
            yield outcome

    def _bury(
        self,
        seat: _Seat,
        error: Exception,
        waiting: deque[Candidate],
        tries: dict[Candidate, int],
    ) -> Iterator[Outcome]:
        """Replace a dead actor; its candidates are tried again, or given up."""
        cause = getattr(error, "cause", None) or error
        if isinstance(error, ray.exceptions.ActorDiedError) and "creation" in str(error).lower():
            raise ClusterError(f"a worker cannot start: {' '.join(str(cause).split())[-500:]}")
        lost, seat.in_flight = list(seat.in_flight.values()), {}
        _log.warning("a worker died with %d candidates in flight; starting another", len(lost))
        seat.actor = self._new_actor()
        # Calls run in order: the first of the lost is the one that was being evaluated.
        for candidate in reversed(lost[1:]):
            waiting.appendleft(candidate)
        if lost:
            first = lost[0]
            tries[first] += 1
            if tries[first] < self._pool.max_tries:
                waiting.appendleft(first)
            else:
                yield failed_outcome(
                    first,
                    WorkerDiedError(f"its worker died {tries[first]} times"),
                    worker="-",
                    eval_s=0.0,
                )

    def close(self) -> None:
        """End the actors and free the object store's copy."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats = []
        self._package = None


class WorkerDiedError(ClusterError):
    """A candidate ended its worker time and again."""
