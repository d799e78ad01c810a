"""The workers of an evaluator: starts them, waits for their messages, and replaces dead ones."""

from __future__ import annotations

import time
from typing import Any, Final

from glora_search.cluster.connection import WorkerPool, await_head, last_words, ray
from glora_search.cluster.room import free_nodes
from glora_search.evaluating.protocol import Package
from glora_search.evaluating.ray_seats import Seat
from glora_search.evaluating.ray_worker import new_actor
from glora_search.study.errors import ClusterError

_TICK_S: Final = 1.0


class Crew:
    """One seat for each worker. With an elastic pool, the number of seats follows the room that the
    cluster has.

    Args:
        package: The supernet and the split.
        pool: Number and size of the workers.
        actors: The existing actors. The crew keeps this list up to date.
    """

    def __init__(self, package: Package, pool: WorkerPool, actors: list[Any]) -> None:
        self._pool = pool
        self._actors = actors
        self._package = ray.put(package)
        self.seats = [Seat(actor, actor.load.remote(self._package)) for actor in actors]
        self._died_loading = 0  # workers in a row
        self._looked_for_room = self.last_up = time.monotonic()

    @property
    def size(self) -> int:
        """Workers that share a batch; one more for an elastic pool, where more may come."""
        return len(self.seats) + self._pool.elastic

    def ready(self) -> list[Seat]:
        """Wait at most a second for seats that have a message. Seats that have been silent for too
        long are returned as well.
        """
        self._grow()
        awaited = {seat.awaited: seat for seat in self.seats if seat.awaited is not None}
        if not awaited:  # no worker is left
            time.sleep(_TICK_S)
            self._check_patience()
            return []
        ready, others = ray.wait(list(awaited), num_returns=1, timeout=_TICK_S)
        if ready and others:  # those that are ready too
            more, others = ray.wait(others, num_returns=len(others), timeout=0)
            ready += more
        if not ready:
            self._check_patience()
        return [awaited[r] for r in ready] + [
            awaited[r] for r in others if self._has_hung(awaited[r])
        ]

    def _grow(self) -> None:
        """With an elastic pool, add a seat for each worker that the cluster has room for."""
        now = time.monotonic()
        if not self._pool.elastic or now < self._looked_for_room + _TICK_S:
            return
        self._looked_for_room = now
        await_head()
        coming = sum(seat.worker is None for seat in self.seats)  # may not occupy their room yet
        for _ in range(self._pool.share.times(free_nodes()) - coming):
            actor = new_actor(self._pool)
            self.seats.append(Seat(actor, actor.load.remote(self._package)))
            self._actors.append(actor)

    def _check_patience(self) -> None:
        """Raise ClusterError if no worker was up for too long, or the head is gone."""
        await_head()
        now = time.monotonic()
        if any(seat.worker is not None for seat in self.seats):
            self.last_up = now
        elif now > self.last_up + self._pool.start_timeout_s:
            free = ray.available_resources()
            raise ClusterError(
                f"no worker came up in {self._pool.start_timeout_s:g} s; free are "
                f"{free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU"
            )

    def _has_hung(self, seat: Seat) -> bool:
        """Whether a seat has been silent for longer than a candidate may take."""
        limit_s = self._pool.candidate_timeout_s
        if limit_s is not None and seat.flights:
            seat.hung = time.monotonic() > seat.heard + limit_s
        return seat.hung

    def start(self, seat: Seat) -> None:
        """Note that a worker has loaded the supernet. A failed load is not counted against any
        candidate.
        """
        try:
            seat.worker = ray.get(seat.loading)
            self.last_up = time.monotonic()
            self._died_loading = 0
        except ray.exceptions.RayActorError as error:
            await_head()
            self._died_loading += 1
            if self._died_loading >= self._pool.max_tries * max(1, len(self.seats)):
                raise ClusterError(f"workers die while they start: {last_words(error)}") from error
            self.refill(seat)
        except ray.exceptions.RayTaskError as error:
            raise ClusterError(f"a worker cannot load the supernet: {last_words(error)}") from error

    def refill(self, seat: Seat) -> None:
        """Put a new actor into a seat. With an elastic pool, remove the seat instead: a new one is
        added as soon as there is room.
        """
        ray.kill(seat.actor)  # an actor that is only unreachable must free its resources
        self._actors.remove(seat.actor)
        seat.flights.clear()
        seat.worker, seat.hung = None, False
        if self._pool.elastic:
            self.seats.remove(seat)
            return
        seat.actor = new_actor(self._pool)
        seat.loading = seat.actor.load.remote(self._package)
        self._actors.append(seat.actor)

    def cancel(self) -> None:
        """Drop all candidates without a result. A worker finishes the evaluation that it has begun,
        so its run stays in its seat until then.
        """
        for seat in self.seats:
            if any(flight.left for flight in seat.flights):
                seat.actor.stop.remote(seat.flights[-1].number)
            for flight in seat.flights:
                flight.left.clear()

    def close(self) -> None:
        """End the actors. The package in the object store is freed with this object."""
        for seat in self.seats:
            ray.kill(seat.actor)
        self.seats = []
