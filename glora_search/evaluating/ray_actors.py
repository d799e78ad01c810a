"""The evaluator on a Ray cluster: actors that stay up, each holding backbone, adapters and data.

An actor is made once and fed one run of candidates after the other, and streams back the results:
several at a time where evaluations are fast, one by one where they are slow. Weights and images are
put into the object store once and mapped by every actor of a node.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from glora_search.cluster.connection import WorkerPool, await_head, connect, ray
from glora_search.cluster.room import free_nodes
from glora_search.evaluating.protocol import Package
from glora_search.evaluating.ray_seats import Flight, Seat
from glora_search.evaluating.ray_streams import start_run
from glora_search.evaluating.ray_worker import new_actor
from glora_search.evaluating.results import Result, failure, worker_name
from glora_search.evaluating.runs import Batch, Supply
from glora_search.study.errors import ClusterError
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import Genome, InvalidConfigError, SearchSpace

__all__ = ["RayEvaluator", "RayWorkers", "WorkerDiedError", "WorkerPool"]

_log = logging.getLogger(__name__)
_TICK_S: Final = 1.0
_RUN_NUMBERS = itertools.count()  # of all evaluators: they may share workers


class WorkerDiedError(ClusterError):
    """A candidate ended its worker time and again."""


class RayWorkers:
    """A connection to Ray with actors that are coming up; `evaluator` gives them work.

    Made before the supernet trains: too small a cluster is told at once.

    Args:
        address: None starts a Ray of just the size that is needed on this machine, and ends it on
            `close`; `auto` or `ray://host:port` joins one.
        pool: Number and size of the workers.
        on_wait: As of `connect`.

    Raises:
        ClusterError: There is no Ray at `address`, or it has not what the workers need.
    """

    def __init__(
        self,
        address: str | None,
        pool: WorkerPool,
        on_wait: Callable[[int], None] = lambda room: None,
    ) -> None:
        connect(address, pool, on_wait)
        self._pool = pool
        n = pool.share.times(free_nodes()) if pool.elastic else pool.workers
        self._actors = [new_actor(pool) for _ in range(n)]

    def warm_up(self) -> None:
        """Have the actors import what an `EvaluationPackage` needs, while the driver is busy with
        other things.
        """
        for actor in self._actors:
            actor.warm_up.remote()

    def evaluator(self, package: Package) -> RayEvaluator:
        """An evaluator on these workers."""
        return RayEvaluator(package, self._pool, self._actors)

    def close(self) -> None:
        """Leave Ray, and end it if it was started here."""
        ray.shutdown()


class RayEvaluator:
    """Evaluates on Ray actors; see `Evaluator`. Made by `RayWorkers.evaluator`.

    Args:
        package: The supernet and the split.
        pool: Number and size of the workers.
        actors: Those that are there already; the list is kept up to date as they come and go.
    """

    def __init__(self, package: Package, pool: WorkerPool, actors: list[Any]) -> None:
        self._pool = pool
        self._actors = actors
        self._space = SearchSpace.from_json(package.space)
        self._package = ray.put(package)
        self._seats = [Seat(actor, actor.load.remote(self._package)) for actor in actors]
        self._died_loading = 0  # one after the other
        self._looked_for_room = self._last_up = time.monotonic()
        self._pace_s = math.inf  # seconds an evaluation, in the last batch

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        """Outcomes as the actors give them."""
        if isinstance(candidates, Sequence):
            return self._evaluate_batch(candidates)
        return self._evaluate_supply(iter(candidates))

    def _evaluate_batch(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        genomes: dict[int, Genome] = {}
        arrived: list[Outcome] = []
        spent_s = 0.0
        for position, candidate in enumerate(candidates):
            encoded = self._encoded(candidate)
            if isinstance(encoded, Outcome):
                arrived.append(encoded)
            else:
                genomes[position] = encoded
        batch = Batch(genomes, max_tries=self._pool.max_tries, pace_s=self._pace_s)
        try:
            while True:
                self._feed(batch, genomes)  # first of all, so that nobody waits for the caller
                yield from arrived
                spent_s += sum(outcome.eval_s for outcome in arrived)
                if batch.done:
                    self._pace_s = spent_s / max(1, len(candidates))
                    break
                arrived = [
                    result.outcome(candidates[result.position], worker)
                    for seat in self._ready()
                    for result, worker in self._hear(seat, batch)
                ]
        finally:
            self._cancel()

    def _evaluate_supply(self, candidates: Iterator[Candidate]) -> Iterator[Outcome]:
        positions = itertools.count()
        candidates_of: dict[int, Candidate] = {}
        genomes: dict[int, Genome] = {}
        unfit: list[Outcome] = []

        def draw() -> tuple[int, Genome] | None:
            for position, candidate in zip(positions, candidates, strict=False):
                encoded = self._encoded(candidate)
                if isinstance(encoded, Outcome):
                    unfit.append(encoded)
                    continue
                candidates_of[position], genomes[position] = candidate, encoded
                return position, encoded
            return None

        def outcome_of(result: Result, worker: str) -> Outcome:
            del genomes[result.position]
            return result.outcome(candidates_of.pop(result.position), worker)

        supply = Supply(draw, max_tries=self._pool.max_tries)
        n_arrived, spent_s = 0, 0.0
        try:
            while True:
                self._feed(supply, genomes)
                yield from unfit
                unfit.clear()
                if supply.done:
                    break
                arrived = [
                    outcome_of(result, worker)
                    for seat in self._ready()
                    for result, worker in self._hear(seat, supply)
                ]
                for outcome in arrived:
                    # Before the next are drawn, which may depend on it.
                    n_arrived, spent_s = n_arrived + 1, spent_s + outcome.eval_s
                    supply.pace_s = spent_s / n_arrived
                    yield outcome
        finally:
            self._cancel()

    def _encoded(self, candidate: Candidate) -> Genome | Outcome:
        """What workers get of a candidate; the outcome of one that is not of the space."""
        try:
            return self._space.encode(candidate.subnet)
        except InvalidConfigError as error:
            return failure(0, error, eval_s=0.0).outcome(candidate, worker_name())

    def _feed(self, batch: Batch, genomes: dict[int, Genome]) -> None:
        """Give work to every worker that has room for it; where more may come, keep a share."""
        workers = len(self._seats) + self._pool.elastic
        for seat in self._seats:
            if not seat.has_room:
                continue
            if batch.suspects:
                if seat.flights:
                    continue  # it comes free soon
                run, alone = [batch.suspects.popleft()], True
            elif batch.waiting:
                run, alone = batch.take_run(workers), False
            else:
                break
            if not run:
                break  # a supply came to its end
            if not seat.flights:
                seat.heard = time.monotonic()
            number = next(_RUN_NUMBERS)
            stream = start_run(seat.actor, number, [genomes[position] for position in run])
            seat.flights.append(Flight(number, stream, run, set(run), alone))

    def _ready(self) -> list[Seat]:
        """The seats that have something to tell, after a second at the latest, and those that have
        told nothing for too long.
        """
        self._grow()
        awaited = {seat.awaited: seat for seat in self._seats if seat.awaited is not None}
        if not awaited:  # every node has left
            time.sleep(_TICK_S)
            self._check_patience()
            return []
        ready, others = ray.wait(list(awaited), num_returns=1, timeout=_TICK_S)
        if ready and others:  # whoever else is ready by now
            more, others = ray.wait(others, num_returns=len(others), timeout=0)
            ready += more
        if not ready:
            self._check_patience()
        return [awaited[r] for r in ready] + [
            awaited[r] for r in others if self._has_hung(awaited[r])
        ]

    def _grow(self) -> None:
        """Give a seat to every worker that the cluster has room for, where their number is open."""
        now = time.monotonic()
        if not self._pool.elastic or now < self._looked_for_room + _TICK_S:
            return
        self._looked_for_room = now
        await_head()
        coming = sum(seat.worker is None for seat in self._seats)  # may not have their share yet
        for _ in range(self._pool.share.times(free_nodes()) - coming):
            actor = new_actor(self._pool)
            self._seats.append(Seat(actor, actor.load.remote(self._package)))
            self._actors.append(actor)

    def _check_patience(self) -> None:
        """Raise ClusterError where no worker has been up for too long, or the head is gone."""
        await_head()
        now = time.monotonic()
        if any(seat.worker is not None for seat in self._seats):
            self._last_up = now
        elif now > self._last_up + self._pool.start_timeout_s:
            free = ray.available_resources()
            raise ClusterError(
                f"no worker came up in {self._pool.start_timeout_s:g} s; free are "
                f"{free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU"
            )

    def _has_hung(self, seat: Seat) -> bool:
        """Whether a seat that has nothing to tell should have had something by now."""
        limit_s = self._pool.candidate_timeout_s
        if limit_s is not None and seat.flights:
            seat.hung = time.monotonic() > seat.heard + limit_s
        return seat.hung

    def _hear(self, seat: Seat, batch: Batch) -> list[tuple[Result, str]]:
        """What a seat that is ready has to tell: results with positions in the batch, and who
        found them.
        """
        if seat.worker is None:
            self._hear_loaded(seat)
            return []
        if seat.hung:
            return self._replace_worker(seat, batch)
        seat.heard = self._last_up = time.monotonic()
        flight = seat.flights[0]
        try:
            report = ray.get(next(flight.stream))
        except StopIteration:
            if flight.left:
                raise ClusterError(
                    f"{seat.worker} left {len(flight.left)} candidates out"
                ) from None
            seat.flights.popleft()
            return []
        except ray.exceptions.RayActorError:
            return self._replace_worker(seat, batch)
        except ray.exceptions.RayTaskError as error:
            raise ClusterError(f"a worker cannot evaluate: {_told(error)}") from error
        results = flight.accept(report, batch)
        if results and not flight.left:
            seat.flights.popleft()  # nothing but its end would follow
        return [(result, seat.worker) for result in results]

    def _hear_loaded(self, seat: Seat) -> None:
        """Put a worker to use; what keeps a supernet from loading is no candidate's fault."""
        try:
            seat.worker = ray.get(seat.loading)
            self._last_up = time.monotonic()
            self._died_loading = 0
        except ray.exceptions.RayActorError as error:
            await_head()
            self._died_loading += 1
            if self._died_loading >= self._pool.max_tries * max(1, len(self._seats)):
                raise ClusterError(f"workers die while they start: {_told(error)}") from error
            self._fill(seat)
        except ray.exceptions.RayTaskError as error:
            raise ClusterError(f"a worker cannot load the supernet: {_told(error)}") from error

    def _replace_worker(self, seat: Seat, batch: Batch) -> list[tuple[Result, str]]:
        """Put a new actor into the seat of one that is dead or has hung; what it leaves is tried
        again, or given up.
        """
        await_head()
        worker, flights, hung = seat.worker or "-", list(seat.flights), seat.hung
        self._fill(seat)
        results = [r for flight in flights for r in flight.accept(flight.last_words(), batch)]
        under_way = [[p for p in flight.run if p in flight.left] for flight in flights]
        ended = "hung" if hung else "died"
        _log.warning("worker %s %s with %d candidates", worker, ended, sum(map(len, under_way)))
        told = [(result, worker) for result in results]
        given_up = batch.blame(under_way)
        if given_up is not None:
            batch.open.remove(given_up)
            times = batch.deaths(given_up)
            error: Exception = WorkerDiedError(f"its worker died {times} times while evaluating it")
            if hung:
                limit_s = self._pool.candidate_timeout_s
                error = TimeoutError(f"no result in {limit_s:g} s, the last of {times} tries")
            told.append((failure(given_up, error, eval_s=0.0), "-"))
        return told

    def _fill(self, seat: Seat) -> None:
        """Put a new actor into a seat, or take it away where it was one of an open number: it comes
        again as soon as there is room.
        """
        ray.kill(seat.actor)  # one that is merely out of reach must not keep its resources
        self._actors.remove(seat.actor)
        seat.flights.clear()
        seat.worker, seat.hung = None, False
        if self._pool.elastic:
            self._seats.remove(seat)
            return
        seat.actor = new_actor(self._pool)
        seat.loading = seat.actor.load.remote(self._package)
        self._actors.append(seat.actor)

    def _cancel(self) -> None:
        """Whoever stopped early does not want the rest. The evaluation that a worker has begun it
        ends, so the run stays in its seat.
        """
        for seat in self._seats:
            if any(flight.left for flight in seat.flights):
                seat.actor.stop.remote(seat.flights[-1].number)
            for flight in seat.flights:
                flight.left.clear()

    def close(self) -> None:
        """End the actors; the object store's copy goes with this object."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats = []


def _told(error: Exception) -> str:
    """What went wrong in a worker, in one line; Ray's own text is a page."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())[-300:]
