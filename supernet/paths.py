"""Which subnets a step of a supernet's training takes: a pure function of the seed and the step."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from search_spaces import NO_LIMITS, SearchSpace, SubnetConfig
from supernet.recipes import Design


class Paths:
    """The paths of a training, by their number; process r of W takes number W * step + r.

    Args:
        space: Of the supernet.
        design: Says how paths are drawn.
        seed: Of the training.
    """

    def __init__(self, space: SearchSpace, design: Design, seed: int) -> None:
        self._space, self._design, self._seed = space, design, seed
        self._square: tuple[int, Sequence[SubnetConfig]] = (-1, ())

    def of(self, number: int) -> list[SubnetConfig]:
        """The subnets of path `number`: one; as many as `paths_per_step`; or with a sandwich the
        largest, the smallest and the random ones.
        """
        n = self._design.sandwich or self._design.paths_per_step
        drawn = [self._draw(number * n + k) for k in range(n)]
        if not self._design.sandwich:
            return drawn
        return [self._space.max_subnet(), self._space.min_subnet(), *drawn]

    def _draw(self, number: int) -> SubnetConfig:
        if self._design.paths == "fair":
            size = max(len(gene.choices) for gene in self._space.genes)
            block, row = divmod(number, size)
            if self._square[0] != block:
                rng = random.Random(f"{self._seed}/square/{block}")
                self._square = block, latin_square(self._space, rng)
            return self._square[1][row]
        rng = random.Random(f"{self._seed}/step/{number}")
        if self._design.limits == NO_LIMITS:
            return self._space.sample(rng)
        return self._space.sample(rng, self._design.limits)


def latin_square(space: SearchSpace, rng: random.Random) -> list[SubnetConfig]:
    """As many subnets as the longest gene has choices. Each of them takes another choice of that
    gene; a gene with fewer choices takes each as often as any other, give or take one.
    """
    size = max(len(gene.choices) for gene in space.genes)
    columns: list[list[str]] = []
    for gene in space.genes:
        rounds = math.ceil(size / len(gene.choices))
        tokens = [t for _ in range(rounds) for t in rng.sample(gene.choices, len(gene.choices))]
        kept = tokens[:size]
        rng.shuffle(kept)
        columns.append(kept)
    return [space.decode(tuple(row)) for row in zip(*columns, strict=True)]
