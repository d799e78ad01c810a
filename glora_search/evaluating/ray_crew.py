"""The workers of an evaluator: they start, send messages, hang or die, and are replaced."""

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
    """One seat for each worker. Where their number is open, seats come and go with the room that
    the cluster has.

    Args:
        package: The supernet and the split.
        pool: Number and size of the workers.
        actors: Those that are there already; the list is kept up to date as they come and go.
    """

    def __init__(self, package: Package, pool: WorkerPool, actors: list[Any]) -> None:
        self._pool = pool
        self._actors = actors
        self._package = ray.put(package)
        self.seats = [Seat(actor, actor.load.remote(self._package)) for actor in actors]
        self._died_loading = 0  # one after the other
        self._looked_for_room = self.last_up = time.monotonic()

    @property
    def size(self) -> int:
        """Workers among which a batch is shared out, with one more where more may come."""
        return len(self.seats) + self._pool.elastic

    def ready(self) -> list[Seat]:
        """Wait, for at most a second, for seats that have a message. Seats that have sent none for
        too long are among them.
        """
        self._grow()
        awaited = {seat.awaited: seat for seat in self.seats if seat.awaited is not None}
        if not awaited:  # every node has left
            time.sleep(_TICK_S)
            self._check_patience()
            return []
        ready, others = ray.wait(list(awaited), num_returns=1, timeout=_TICK_S)
        if ready and others:  # all others that are ready by now
            more, others = ray.wait(others, num_returns=len(others), timeout=0)
            ready += more
        if not ready:
            self._check_patience()
        return [awaited[r] for r in ready] + [
            awaited[r] for r in others if self._has_hung(awaited[r])
        ]

    def _grow(self) -> None:
        """With an open number of workers, add a seat for each that the cluster has room for."""
        now = time.monotonic()
        if not self._pool.elastic or now < self._looked_for_room + _TICK_S:
            return
        self._looked_for_room = now
        await_head()
        coming = sum(seat.worker is None for seat in self.seats)  # may not have their share yet
        for _ in range(self._pool.share.times(free_nodes()) - coming):
            actor = new_actor(self._pool)
            self.seats.append(Seat(actor, actor.load.remote(self._package)))
            self._actors.append(actor)

    def _check_patience(self) -> None:
        """Raise ClusterError where no worker has been up for too long, or the head is gone."""
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
        """Whether a seat has sent no message for longer than a candidate may take."""
        limit_s = self._pool.candidate_timeout_s
        if limit_s is not None and seat.flights:
            seat.hung = time.monotonic() > seat.heard + limit_s
        return seat.hung

    def start(self, seat: Seat) -> None:
        """Note that a worker has loaded the supernet; a failed load is no candidate's fault."""
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
        """Put a new actor into a seat, or take it away where it was one of an open number: it comes
        again as soon as there is room.
        """
        ray.kill(seat.actor)  # one that is merely out of reach must not keep its resources
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
        """Drop the candidates without a result. A worker finishes the evaluation that it has begun,
        so the run stays in its seat.
        """
        for seat in self.seats:
            if any(flight.left for flight in seat.flights):
                seat.actor.stop.remote(seat.flights[-1].number)
            for flight in seat.flights:
                flight.left.clear()

    def close(self) -> None:
        """End the actors; the object store's copy goes with this object."""
        for seat in self.seats:
            ray.kill(seat.actor)
        self.seats = []
