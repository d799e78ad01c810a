"""How a batch is cut into runs for several workers.

A run is a piece of the batch in the order of the genomes, so that neighbours agree in as many
first blocks as they can, and a worker that evaluates a run shares what they have in common. Every
cut gives some of that away; too few of them leave workers idle at the end. So each worker that is
free gets its share of what waits: long runs at first, single candidates at last (guided
self-scheduling: Polychronopoulos and Kuck, 1987).

A supply has no such order, and nothing that waits: a candidate is drawn from it for a worker that
has room. Its runs are single candidates, unless those are too short to be worth a message each.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from search_spaces import Genome

_RUN_S: Final = 0.01  # what a run should last: a message takes a millisecond


class Batch:
    """The candidates of one batch that have no outcome yet, by their positions in it.

    One of them may end whatever process evaluates it. Of a run whose worker died nobody knows which
    one did it, so all that had no outcome become suspects: they are tried one at a time, each alone
    on its worker, and only a death that leaves no doubt is counted.

    Args:
        genomes: Position to genome, of what is to be evaluated.
        max_tries: How often a candidate may end its worker before it is given up.
        pace_s: Seconds that an evaluation took lately; where they are next to none, runs do not
            shrink below what is worth a message.
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
        """Whether there are candidates, suspects apart, that no worker has."""
        return bool(self._waiting)

    def take_run(self, workers: int) -> list[int]:
        """The next run for one of `workers`: its share of what waits, at least one if any."""
        share = math.ceil(len(self._waiting) / workers)
        fair = math.ceil(self._total / workers)
        length = min(max(share, min(self._worthwhile, fair)), len(self._waiting))
        return [self._waiting.popleft() for _ in range(length)]

    def give_back(self, run: Iterable[int]) -> None:
        """Take back a run that no worker has begun."""
        self._waiting.extendleft(reversed(list(run)))

    def blame(self, under_way: Sequence[Sequence[int]]) -> int | None:
        """Sort out what a dead worker leaves.

        Args:
            under_way: Its runs in the order in which it evaluates them, each without what has an
                outcome. It cannot have begun any but the first of those that are not empty.

        Returns:
            The candidate that is given up; None where none is.
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
        """How many workers died with nothing but this candidate under way."""
        return self._deaths.get(position, 0)


class Supply(Batch):
    """A batch that is not known beforehand: it grows as its candidates are drawn.

    Args:
        draw: The position and the genome of the next candidate; None after the last one.
        max_tries: As of a batch.
    """

    def __init__(self, draw: Callable[[], tuple[int, Genome] | None], *, max_tries: int) -> None:
        super().__init__({}, max_tries=max_tries)
        self._draw = draw
        self._is_dry = False
        self.pace_s = math.inf  # seconds an evaluation, as far as they are known

    @property
    def done(self) -> bool:
        """Whether everything has an outcome, and nothing more is to come."""
        return self._is_dry and not self.open

    @property
    def waiting(self) -> bool:
        """Whether there are, or may be, candidates that no worker has."""
        return bool(self._waiting) or not self._is_dry

    def take_run(self, workers: int) -> list[int]:
        """What was given back; else new ones, of which there may be none left."""
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
