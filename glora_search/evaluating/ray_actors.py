"""The evaluator on a Ray cluster. Its actors stay up; each holds backbone, adapters and data.

An actor is made once and gets one run of candidates after the other. It streams the results back:
one by one if evaluations are slow, several in a message if they are fast. Weights and images are
put into the object store once; all actors of a node map the same copy.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from glora_search.cluster.connection import (
    WorkerPool,
    await_head,
    connect,
    disconnect,
    last_words,
    ray,
)
from glora_search.cluster.room import free_nodes
from glora_search.evaluating.protocol import Package
from glora_search.evaluating.ray_crew import Crew
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
_RUN_NUMBERS: Final = itertools.count()  # across evaluators, because they may share workers


class WorkerDiedError(ClusterError):
    """The evaluation of a candidate ended its worker `max_tries` times."""


class RayWorkers:
    """A connection to Ray with actors that start in the background; `evaluator` gives them work.

    It is made before the supernet trains, so a cluster that is too small is an error at once.

    Args:
        address: `auto` or `ray://host:port` joins a Ray. None starts one on this machine, just
            large enough for the workers, and `close` ends it.
        pool: Number and size of the workers.
        on_wait: As in `connect`.

    Raises:
        ClusterError: There is no Ray at `address`, or it is too small for the workers.
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
        """Let the actors import what an `EvaluationPackage` needs, while the driver does other
        work.
        """
        for actor in self._actors:
            actor.warm_up.remote()

    def evaluator(self, package: Package) -> RayEvaluator:
        """An evaluator on these workers."""
        return RayEvaluator(package, self._pool, self._actors)

    def close(self) -> None:
        """Disconnect from Ray; end it if it was started here."""
        disconnect()


class RayEvaluator:
    """Evaluates on Ray actors; see `Evaluator`. Made by `RayWorkers.evaluator`.

    Args:
        package: The supernet and the split.
        pool: Number and size of the workers.
        actors: The existing actors. The evaluator keeps this list up to date.
    """

    def __init__(self, package: Package, pool: WorkerPool, actors: list[Any]) -> None:
        self._pool = pool
        self._space = SearchSpace.from_json(package.space)
        self._crew = Crew(package, pool, actors)
        self._pace_s = math.inf  # seconds an evaluation, in the last batch

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        """Outcomes as they arrive from the actors."""
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
                self._feed(batch, genomes)  # before the yield: no worker waits for the caller
                yield from arrived
                spent_s += sum(outcome.eval_s for outcome in arrived)
                if batch.done:
                    self._pace_s = spent_s / max(1, len(candidates))
                    break
                arrived = [
                    result.outcome(candidates[result.position], worker)
                    for seat in self._crew.ready()
                    for result, worker in self._hear(seat, batch)
                ]
        finally:
            self._crew.cancel()

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
                    for seat in self._crew.ready()
                    for result, worker in self._hear(seat, supply)
                ]
                for outcome in arrived:
                    # Yielded before the next candidate is drawn, which may depend on it.
                    n_arrived, spent_s = n_arrived + 1, spent_s + outcome.eval_s
                    supply.pace_s = spent_s / n_arrived
                    yield outcome
        finally:
            self._crew.cancel()

    def _encoded(self, candidate: Candidate) -> Genome | Outcome:
        """The candidate's genome; or its outcome, if its subnet is not of the search space."""
        try:
            return self._space.encode(candidate.subnet)
        except InvalidConfigError as error:
            return failure(0, error, eval_s=0.0).outcome(candidate, worker_name())

    def _feed(self, batch: Batch, genomes: dict[int, Genome]) -> None:
        """Give a run to every worker that has room. A share is kept for workers that may come."""
        workers = self._crew.size
        for seat in self._crew.seats:
            if not seat.has_room:
                continue
            if batch.suspects:
                if seat.flights:
                    continue  # it will be free soon
                run, alone = [batch.suspects.popleft()], True
            elif batch.waiting:
                run, alone = batch.take_run(workers), False
            else:
                break
            if not run:
                break  # the supply has ended
            if not seat.flights:
                seat.heard = time.monotonic()
            number = next(_RUN_NUMBERS)
            stream = start_run(seat.actor, number, [genomes[position] for position in run])
            seat.flights.append(Flight(number, stream, run, set(run), alone))

    def _hear(self, seat: Seat, batch: Batch) -> list[tuple[Result, str]]:
        """Read a message from a seat that has one. Returns results with their positions in the
        batch, each with the worker's name.
        """
        if seat.worker is None:
            self._crew.start(seat)
            return []
        if seat.hung:
            return self._replace_worker(seat, batch)
        seat.heard = self._crew.last_up = time.monotonic()
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
            raise ClusterError(f"a worker cannot evaluate: {last_words(error)}") from error
        results = flight.accept(report, batch)
        if results and not flight.left:
            seat.flights.popleft()  # only the end of its stream would follow
        return [(result, seat.worker) for result in results]

    def _replace_worker(self, seat: Seat, batch: Batch) -> list[tuple[Result, str]]:
        """Replace an actor that died or hung. Its candidates are tried again, or given up.

        Returns:
            Results that the actor had sent, and the failure of a candidate that is given up.
        """
        await_head()
        worker, flights, hung = seat.worker or "-", list(seat.flights), seat.hung
        self._crew.refill(seat)
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

    def close(self) -> None:
        """End the actors."""
        self._crew.close()
