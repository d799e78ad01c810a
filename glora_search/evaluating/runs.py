"""Cuts a batch into runs for several workers.

A batch is sorted by genome, so that neighbours have as many of the first blocks in common as
possible, and cut into runs. The worker computes what the candidates of a run have in common only
once. Short runs lose some of this sharing; long runs leave workers idle at the end. So each free
worker gets its share of the waiting candidates: long runs at first, single candidates at last
(guided self-scheduling: Polychronopoulos and Kuck, 1987).

A supply cannot be sorted, because its candidates are made one at a time, when a worker has room.
Its runs are single candidates, unless an evaluation is too short to be worth a message.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from search_spaces import Genome

_RUN_S: Final = 0.01  # least duration of a run; a message takes a millisecond


class Batch:
    """The candidates of one batch that have no outcome yet, by their positions in it.

    A candidate may end the process that evaluates it. If a worker dies during a run, it is not
    known which candidate ended it. So all candidates of the run without an outcome become suspects.
    Each suspect is tried alone on a worker. A death is counted only if the worker had a single
    candidate.

    Args:
        genomes: Position to genome, for each candidate to evaluate.
        max_tries: How often a candidate may end its worker before it is given up.
        pace_s: Seconds for an evaluation, as measured lately. If they are few, runs do not get
            shorter than what is worth a message.
    """

    def __init__(
        self, genomes: dict[int, Genome], *, max_tries: int, pace_s: float = math.inf
    ) -> None:
        self._total = len(genomes)
        self._worthwhile = math.ceil(_RUN_S / max(pace_s, 1e-9))
        self.open = set(genomes)
        self.suspects: deque[int] = deque()
        self._waiting = deque(sorted(genomes, key=genomes.__getitem__))
        self._max_tries = max_tries
        self._deaths: dict[int, int] = {}

    @property
    def done(self) -> bool:
        """Whether everything has an outcome, and nothing more is to come."""
        return not self.open

    @property
    def waiting(self) -> bool:
        """Whether candidates other than suspects wait for a worker."""
        return bool(self._waiting)

    def take_run(self, workers: int) -> list[int]:
        """The next run for one of `workers`: its share of the waiting candidates, at least one."""
        share = math.ceil(len(self._waiting) / workers)
        fair = math.ceil(self._total / workers)
        length = min(max(share, min(self._worthwhile, fair)), len(self._waiting))
        return [self._waiting.popleft() for _ in range(length)]

    def give_back(self, run: Iterable[int]) -> None:
        """Put a run that no worker has begun back to the front."""
        self._waiting.extendleft(reversed(list(run)))

    def blame(self, under_way: Sequence[Sequence[int]]) -> int | None:
        """Make the candidates of a dead worker wait again, become suspects, or be given up.

        Args:
            under_way: The worker's runs in order, each without the candidates that have an outcome.
                The worker has begun only the first run that is not empty.

        Returns:
            The candidate that is given up; None if there is none.
        """
        begun, *rest = [run for run in under_way if run] or [[]]
        self.give_back(position for run in rest for position in run)
        if len(begun) == 1 and not rest:
            deaths = self._deaths[begun[0]] = self.deaths(begun[0]) + 1
            if deaths >= self._max_tries:
                return begun[0]
        self.suspects.extend(begun)
        return None

    def deaths(self, position: int) -> int:
        """How many workers died while this candidate was their only one."""
        return self._deaths.get(position, 0)


class Supply(Batch):
    """A batch whose candidates are drawn when workers have room.

    Args:
        draw: Returns position and genome of the next candidate; None after the last one.
        max_tries: As in `Batch`.
    """

    def __init__(self, draw: Callable[[], tuple[int, Genome] | None], *, max_tries: int) -> None:
        super().__init__({}, max_tries=max_tries)
        self._draw = draw
        self._is_dry = False
        self.pace_s = math.inf  # seconds for an evaluation; infinite until one is known

    @property
    def done(self) -> bool:
        """Whether everything has an outcome, and nothing more is to come."""
        return self._is_dry and not self.open

    @property
    def waiting(self) -> bool:
        """Whether candidates wait for a worker, or more may be drawn."""
        return bool(self._waiting) or not self._is_dry

    def take_run(self, workers: int) -> list[int]:
        """Candidates that were given back, else newly drawn ones; empty if none is left."""
        length = max(1, math.ceil(_RUN_S / max(self.pace_s, 1e-9)))
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(length, len(self._waiting)))]
        run: dict[int, Genome] = {}
        while len(run) < length and not self._is_dry:
            drawn = self._draw()
            if drawn is None:
                self._is_dry = True
            else:
                run.update([drawn])
        self.open.update(run)
        return sorted(run, key=run.__getitem__)
