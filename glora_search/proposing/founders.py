"""Founders: the informed half of generation 0, where a search does not start at random alone.

`median-rank`: the subnet with the middle choice, by parameters, in every gene, and mutations of it.
`sensitivity`: subnets drawn at random; the more a choice lowers the training loss to first order,
the more often it is drawn. `spread`: subnets of evenly spread sizes, the smallest first, because a
front needs all sizes and uniform draws are nearly all of one size. All founders are within the
limits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, Protocol

from glora_search.proposing.breeding import Draft, Seen
from glora_search.proposing.operators import Parent, RedrawFew
from glora_search.proposing.settings import SearchSettings
from search_spaces import (
    Gene,
    Genome,
    InfeasibleLimitError,
    InvalidConfigError,
    ParamLimits,
    SearchSpace,
)
from search_spaces.draws import draw

Sensitivity = Mapping[str, Mapping[str, float]]
"""Gene name to choice to score: how much the choice is expected to lower the training loss."""

_ATTEMPTS: Final = 100
_BAND_DRAWS: Final = 2_000
_MOST: Final = 2.0
"""Scores are cut there, in units of their root mean square: no choice is more than e^4 times as
likely as another one of its gene."""


class Founders(Protocol):
    """Makes informed subnets for the first generation."""

    def draft(self, index: int, seen: Seen, rng: random.Random) -> Draft | None:
        """A genome for place `index` that is not in `seen`; None if none was found. It is not
        added to `seen`.
        """
        ...


def make_founders(
    space: SearchSpace, settings: SearchSettings, seed: int, *, sensitivity: Sensitivity | None
) -> Founders | None:
    """The founders that `settings.warm_start` names; None for a random start.

    Raises:
        InvalidConfigError: They need scores, and there are none, or not for every choice.
    """
    if settings.warm_start == "median-rank":
        return MedianRank(space.genes, settings.limits, seed)
    if settings.warm_start == "spread":
        return Spread(space, settings.limits, n_founders(settings))
    if settings.warm_start == "sensitivity":
        if sensitivity is None:
            raise InvalidConfigError(
                "a warm start by sensitivity needs the scores of the supernet's choices"
            )
        return Sensitive(space.genes, settings.limits, sensitivity)
    return None


def n_founders(settings: SearchSettings) -> int:
    """How many places of generation 0 are informed; the others start at random."""
    return 0 if settings.warm_start == "none" else settings.population // 2


class MedianRank:
    """`Founders`: the subnet in the middle, then local mutations of it."""

    def __init__(self, genes: tuple[Gene, ...], limits: ParamLimits, seed: int) -> None:
        self._genes, self._limits, self._seed = genes, limits, seed
        self._mutate = RedrawFew(genes, limits)

    def draft(self, index: int, seen: Seen, rng: random.Random) -> Draft | None:
        """As in `Founders`; place 0 has the subnet in the middle itself."""
        middle = self._middle
        if middle is None:
            return None
        if index == 0 and middle.genome not in seen:
            return Draft("median-rank", (), middle.genome)
        for _ in range(_ATTEMPTS):
            genome = self._mutate(middle, rng)
            if genome is not None and genome not in seen:
                return Draft("median-rank", (), genome)
        return None

    @cached_property
    def _middle(self) -> Parent | None:
        """The middle choice in every gene. Where that is outside of the limits, genes take the next
        smaller or larger choice in a random order until it is within them; None if they miss them.
        """
        ranked = [
            sorted(range(len(gene.costs)), key=gene.costs.__getitem__) for gene in self._genes
        ]
        places = [(len(order) - 1) // 2 for order in ranked]
        rng = random.Random(f"{self._seed}/median-rank")

        def total() -> int:
            chosen = zip(self._genes, ranked, places, strict=True)
            return sum(gene.costs[order[place]] for gene, order, place in chosen)

        for _ in range(4 * sum(map(len, ranked))):
            if self._limits.allow(total()):
                chosen = zip(self._genes, ranked, places, strict=True)
                genome = tuple(gene.choices[order[place]] for gene, order, place in chosen)
                return Parent.of(self._genes, genome)
            step = 1 if total() < self._limits.min_params else -1
            movable = [g for g, place in enumerate(places) if 0 <= place + step < len(ranked[g])]
            if not movable:
                return None
            places[rng.choice(movable)] += step
        return None


class Sensitive:
    """`Founders` whose choices are drawn with weights that grow with their scores.

    Raises:
        InvalidConfigError: A choice has no score.
    """

    def __init__(
        self, genes: tuple[Gene, ...], limits: ParamLimits, sensitivity: Sensitivity
    ) -> None:
        self._genes, self._limits = genes, limits
        self._costs = [gene.costs for gene in genes]
        self._weights = weights_of(genes, sensitivity)

    def draft(self, index: int, seen: Seen, rng: random.Random) -> Draft | None:
        """As in `Founders`."""
        for _ in range(_ATTEMPTS):
            chosen = draw(self._costs, rng, self._limits, weights=self._weights)
            genome: Genome = tuple(
                gene.choices[k] for gene, k in zip(self._genes, chosen, strict=True)
            )
            if genome not in seen:
                return Draft("sensitivity", (), genome)
        return None


class Spread:
    """`Founders`: the smallest subnet, then one of each band of sizes up to the largest one.

    Args:
        space: What subnets are chosen from.
        limits: The bands divide what they leave of the space.
        n: How many bands there are.
    """

    def __init__(self, space: SearchSpace, limits: ParamLimits, n: int) -> None:
        self._space, self._limits, self._n = space, limits, n
        self._costs = [gene.costs for gene in space.genes]
        smallest, largest = sum(map(min, self._costs)), sum(map(max, self._costs))
        self._from = max(limits.min_params, smallest)
        self._to = largest if limits.max_params is None else min(limits.max_params, largest)

    def draft(self, index: int, seen: Seen, rng: random.Random) -> Draft | None:
        """As in `Founders`; place 0 has the smallest subnet where that is within the limits."""
        smallest = self._space.encode(self._space.min_subnet())
        if index == 0 and self._from == sum(map(min, self._costs)) and smallest not in seen:
            return Draft("spread", (), smallest)
        width = self._to - self._from
        band = ParamLimits(
            self._from + width * index // self._n, self._from + width * (index + 1) // self._n
        )
        for _ in range(_ATTEMPTS):
            try:
                chosen = draw(self._costs, rng, band, max_draws=_BAND_DRAWS)
            except InfeasibleLimitError:  # a space of few sizes has none in this band
                return None
            genome: Genome = tuple(
                gene.choices[k] for gene, k in zip(self._space.genes, chosen, strict=True)
            )
            if genome not in seen:
                return Draft("spread", (), genome)
        return None


def weights_of(genes: Sequence[Gene], sensitivity: Sensitivity) -> list[tuple[float, ...]]:
    """For each gene the weight of each choice: the exponential of its score, which is scaled to a
    root mean square of 1 over all genes and cut at 2 either way.

    Raises:
        InvalidConfigError: A choice has no score.
    """
    try:
        scores = [[sensitivity[gene.name][token] for token in gene.choices] for gene in genes]
    except KeyError as error:
        raise InvalidConfigError(f"the scores of the supernet's choices lack {error}") from error
    flat = [score for each in scores for score in each]
    scale = math.sqrt(sum(score**2 for score in flat) / len(flat)) or 1.0
    return [
        tuple(math.exp(max(-_MOST, min(_MOST, score / scale))) for score in each) for each in scores
    ]
