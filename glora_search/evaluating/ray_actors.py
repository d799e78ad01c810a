"""The evaluator on a Ray cluster: actors that stay up, each holding backbone, adapters and data.

An actor is made once and fed one candidate after the other (726 calls a second where a Ray Tune
trial with reused actors reaches 13). Every actor has two candidates in flight, so that it never
waits for the driver. Weights and images are put into the object store once and mapped by every
actor of a node.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from glora_search.errors import ClusterError
from glora_search.evaluating.package import EvaluationPackage, evaluate_candidate, failed_outcome
from glora_search.records import Candidate, Outcome
from supernet import SubnetEvaluator

# Read by ray at its import: no usage report, and an actor without GPU leaves CUDA alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

_log = logging.getLogger(__name__)

_IN_FLIGHT: Final = 2  # candidates an actor holds: one that it evaluates, one that waits for it
_CONNECT_TIMEOUT_S: Final = 10.0


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


class RayWorkers:
    """A connection to Ray with actors that are coming up; `evaluator` gives them work.

    Made before the supernet trains: too small a cluster is told at once, and the actors import what
    they need meanwhile.

    Args:
        address: None starts a Ray of just the size that is needed on this machine, and ends it on
            `close`; `auto` or `ray://host:port` joins one.
        pool: Number and size of the workers.

    Raises:
        ClusterError: There is no Ray at `address`, or it has not what the workers need.
    """

    def __init__(self, address: str | None, pool: WorkerPool) -> None:
        _connect(address, pool)
        self._pool = pool
        self._actors = [_new_actor(pool) for _ in range(pool.workers)]

    def evaluator(self, package: EvaluationPackage) -> RayEvaluator:
        """An evaluator on these workers."""
        return RayEvaluator(package, self._pool, self._actors)

    def close(self) -> None:
        """Leave Ray, and end it if it was started here."""
        ray.shutdown()


def _connect(address: str | None, pool: WorkerPool) -> None:
    if not ray.is_initialized():
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "namespace": "glora-search",
        }
        if address is None:
            # "local": without it Ray would join whatever instance happens to run on this machine
            options |= {"address": "local", "include_dashboard": False}
            options |= {"num_cpus": pool.workers * pool.cpus}
        else:
            check_reachable(address)
            options["address"] = address
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "on this machine" if address is None else f"at {address!r}"
            reason = " ".join(str(error).split())[:300]
            raise ClusterError(f"no Ray {where}: {reason}") from error
    total = ray.cluster_resources()
    needed = {"CPU": pool.workers * pool.cpus, "GPU": pool.workers * pool.gpus}
    if any(amount > total.get(name, 0) for name, amount in needed.items()):
        has = " and ".join(f"{total.get(name, 0):g} {name}" for name in needed)
        raise ClusterError(
            f"{pool.workers} workers need {needed['CPU']:g} CPU and {needed['GPU']:g} GPU; the "
            f"cluster has {has}. Lower cluster.workers, cluster.cpus_per_worker or "
            "cluster.gpus_per_worker"
        )


def check_reachable(address: str) -> None:
    """Raise ClusterError unless somebody listens there: Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ClusterError(
            f"{address!r} is no address of Ray; accepted: auto, HOST:PORT, ray://HOST:PORT"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(f"no Ray at {address!r}: {error.strerror or error}") from error


def _new_actor(pool: WorkerPool) -> Any:
    remote = ray.remote(_Worker).options(
        num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=0, max_concurrency=1
    )
    return remote.remote()


class _Worker:
    """What runs in an actor. Calls run in the order in which they are made, so `load` comes
    first.
    """

    def __init__(self) -> None:
        self._evaluate: SubnetEvaluator | None = None

    def load(self, package: EvaluationPackage) -> None:
        self._evaluate = package.unpack()

    def evaluate(self, candidate: Candidate) -> Outcome:
        if self._evaluate is None:
            raise RuntimeError("the worker could not load the supernet")
        return evaluate_candidate(self._evaluate, candidate)


@dataclass(eq=False)
class _Seat:
    """A place among the workers; it is filled again when its actor dies."""

    number: int
    actor: Any
    loading: Any
    in_flight: dict[Any, Candidate] = field(default_factory=dict)


class RayEvaluator:
    """Evaluates on Ray actors; see `Evaluator`. Made by `RayWorkers.evaluator`.

    Args:
        package: The supernet and the split.
        pool: Number and size of the workers.
        actors: As many as the pool says; those that die are replaced in this list.
    """

    def __init__(self, package: EvaluationPackage, pool: WorkerPool, actors: list[Any]) -> None:
        self._pool = pool
        self._actors = actors
        self._package = ray.put(package)
        self._seats = [
            _Seat(number, actor, actor.load.remote(self._package))
            for number, actor in enumerate(actors)
        ]
        self._checked = False

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        """Outcomes as the actors give them."""
        self._check_workers()
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

    def _check_workers(self) -> None:
        """Wait until a worker is there; what keeps a supernet from loading is no candidate's
        fault.
        """
        tries = 0
        while not self._checked:
            seat = self._first_loaded()
            tries += 1
            try:
                ray.get(seat.loading)
                self._checked = True
            except ray.exceptions.RayActorError as error:
                if tries >= self._pool.max_tries * len(self._seats):
                    raise ClusterError(f"workers die while they start: {_told(error)}") from error
                self._fill(seat)
            except ray.exceptions.RayTaskError as error:
                raise ClusterError(f"a worker cannot load the supernet: {_told(error)}") from error

    def _first_loaded(self) -> _Seat:
        """The first seat whose worker has loaded its package, or has failed to."""
        timeout_s = self._pool.start_timeout_s
        loading = {seat.loading: seat for seat in self._seats}
        ready, _ = ray.wait(list(loading), num_returns=1, timeout=timeout_s)
        if not ready:
            free = ray.available_resources()
            raise ClusterError(
                f"no worker came up in {timeout_s:g} s; free are {free.get('CPU', 0):g} CPU and "
                f"{free.get('GPU', 0):g} GPU"
            )
        return loading[ready[0]]

    def _fill(self, seat: _Seat) -> None:
        """Put a new actor into a seat."""
        seat.actor = self._actors[seat.number] = _new_actor(self._pool)
        seat.loading = seat.actor.load.remote(self._package)

    def _feed(self, waiting: deque[Candidate]) -> None:
        for _ in range(_IN_FLIGHT):  # breadth first: every actor has one before any has two
            for seat in self._seats:
                if waiting and len(seat.in_flight) < _IN_FLIGHT:
                    candidate = waiting.popleft()
                    seat.in_flight[seat.actor.evaluate.remote(candidate)] = candidate

    def _collect(self, waiting: deque[Candidate], tries: dict[Candidate, int]) -> Iterator[Outcome]:
        references = {ref: seat for seat in self._seats for ref in seat.in_flight}
        ready, _ = ray.wait(list(references), num_returns=1)
        for reference in ready:
            seat = references[reference]
            try:
                outcome: Outcome = ray.get(reference)
            except ray.exceptions.RayActorError:
                yield from self._replace_worker(seat, waiting, tries)
                continue
            except ray.exceptions.RayTaskError as error:
                raise ClusterError(f"a worker cannot evaluate: {_told(error)}") from error
            del seat.in_flight[reference]
            yield outcome

    def _replace_worker(
        self, seat: _Seat, waiting: deque[Candidate], tries: dict[Candidate, int]
    ) -> Iterator[Outcome]:
        """Put a new actor into the seat of a dead one; its candidates are tried again, or given
        up.
        """
        lost, seat.in_flight = list(seat.in_flight.values()), {}
        _log.warning("a worker died with %d candidates in flight; starting another", len(lost))
        self._fill(seat)
        # Calls run in order: the first of the lost is the one that was being evaluated.
        first, *rest = lost
        tries[first] += 1
        given_up = tries[first] >= self._pool.max_tries
        waiting.extendleft(reversed(rest if given_up else lost))
        if given_up:
            died = WorkerDiedError(f"its worker died {tries[first]} times while evaluating it")
            yield failed_outcome(first, died, worker="-", eval_s=0.0)

    def close(self) -> None:
        """End the actors; the object store's copy goes with this object."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats = []


def _told(error: Exception) -> str:
    """What went wrong in a worker, in one line; Ray's own text is a page."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())[-300:]


class WorkerDiedError(ClusterError):
    """A candidate ended its worker time and again."""
