"""What the driver knows of a worker: its actor, and the runs that the actor has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glora_search.cluster.connection import ray
from glora_search.evaluating.ray_streams import Stream
from glora_search.evaluating.results import Result
from glora_search.evaluating.runs import Batch


@dataclass(eq=False)
class Flight:
    """A run that was given to an actor.

    Args:
        number: The run's number, unique among all runs.
        stream: Yields references to lists of results.
        run: For each candidate of the run, in order, its position in the batch.
        left: Positions without a result; emptied when the results are no longer wanted.
        alone: Whether the actor may have no other run meanwhile.
    """

    number: int
    stream: Stream
    run: Sequence[int]
    left: set[int]
    alone: bool

    @property
    def ends_soon(self) -> bool:
        """Whether the actor may get its next run now, to wait behind this one."""
        return not self.alone and len(self.left) <= len(self.run) // 4

    def accept(self, report: Iterable[Result], batch: Batch) -> list[Result]:
        """The results of a report that are still wanted, with their positions in the batch."""
        accepted = []
        for result in report:
            position = self.run[result.position]
            if position in self.left:
                self.left.remove(position)
                batch.open.remove(position)
                accepted.append(result._replace(position=position))
        return accepted

    def last_words(self) -> list[Result]:
        """The unread results that an actor sent before it died."""
        results: list[Result] = []
        while True:
            try:
                results += ray.get(next(self.stream))
            except StopIteration:
                return results
            except ray.exceptions.RayError:  # it tells the actor's death
                continue


@dataclass(eq=False)
class Seat:
    """The place of one worker. If its actor dies, the seat gets a new one.

    Args:
        actor: The current actor.
        loading: A reference to the worker's name, ready when the actor has loaded the package.
        worker: The worker's name; None until the package is loaded.
        flights: The actor's runs, in order: the current one, and at most one that waits behind it.
        heard: When the actor last sent a message, or got a run while idle; `time.monotonic`.
        hung: Whether the actor has been silent for longer than a candidate may take.
    """

    actor: Any
    loading: Any
    worker: str | None = None
    flights: deque[Flight] = field(default_factory=deque)
    heard: float = 0.0
    hung: bool = False

    @property
    def awaited(self) -> Any:
        """The reference to the actor's next message; None while the actor is idle."""
        if self.worker is None:
            return self.loading
        return self.flights[0].stream.awaited if self.flights else None

    @property
    def has_room(self) -> bool:
        """Whether the actor is idle, or nearly done with its only run."""
        if self.worker is None:
            return False
        return not self.flights or (len(self.flights) == 1 and self.flights[0].ends_soon)
