"""What the driver knows of a worker: its actor, and the runs that it has been given."""

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
    """A run that an actor has.

    Args:
        number: Counted over all runs.
        stream: Of lists of results.
        run: Positions in the batch, by their positions in the run.
        left: Those without a result; emptied when their results are no longer wanted.
        alone: Whether nothing else may be under way on the same actor.
    """

    number: int
    stream: Stream
    run: Sequence[int]
    left: set[int]
    alone: bool

    @property
    def ends_soon(self) -> bool:
        """Whether another run may queue behind this one."""
        return not self.alone and len(self.left) <= len(self.run) // 4

    def accept(self, report: Iterable[Result], batch: Batch) -> list[Result]:
        """Those results of a report that are wanted, with positions in the batch."""
        accepted = []
        for result in report:
            position = self.run[result.position]
            if position in self.left:
                self.left.remove(position)
                batch.open.remove(position)
                accepted.append(result._replace(position=position))
        return accepted

    def last_words(self) -> list[Result]:
        """Results that a dead actor had sent and that have not been read yet."""
        results: list[Result] = []
        while True:
            try:
                results += ray.get(next(self.stream))
            except StopIteration:
                return results
            except ray.exceptions.RayError:  # its death
                continue


@dataclass(eq=False)
class Seat:
    """The place of one worker; it gets a new actor when its actor dies.

    Args:
        actor: Who has it now.
        loading: The worker's name, once it has loaded the package.
        worker: That name, or None until then.
        flights: Its runs, in the order in which it evaluates them: one, and one that waits for it.
        heard: When it last sent a message, or got a run while it was idle; seconds of a clock.
        hung: Whether it has sent no message for longer than a candidate may take.
    """

    actor: Any
    loading: Any
    worker: str | None = None
    flights: deque[Flight] = field(default_factory=deque)
    heard: float = 0.0
    hung: bool = False

    @property
    def awaited(self) -> Any:
        """The reference to its next message; None while it is idle."""
        if self.worker is None:
            return self.loading
        return self.flights[0].stream.awaited if self.flights else None

    @property
    def has_room(self) -> bool:
        """Whether its worker is idle, or will be before a new run could reach it."""
        if self.worker is None:
            return False
        return not self.flights or (len(self.flights) == 1 and self.flights[0].ends_soon)
