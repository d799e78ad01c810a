"""Makes the genomes of a generation: chooses the operator of each place, replaces duplicates.

It works on genomes and knows neither subnets nor studies. So the search loop's proposer and the
Optuna sampler share it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Final, Protocol

from glora_search.proposing.operators import Operators, Parent, make_operators
from glora_search.proposing.seeding import candidate_rng
from glora_search.proposing.settings import SearchSettings
from search_spaces import Gene, Genome, ParamLimits
from search_spaces.draws import draw

_CHILD_ATTEMPTS: Final = 20
_RANDOM_ATTEMPTS: Final = 100
_LISTED: Final = 2_000  # if random draws find nothing new, spaces up to this size are listed


class Seen(Protocol):
    """The genomes that were proposed before. A set has these methods."""

    def __contains__(self, genome: object, /) -> bool: ...

    def add(self, genome: Genome, /) -> None:
        """Remember `genome`."""
        ...


@dataclass(frozen=True)
class Draft:
    """A new genome, and where it comes from.

    Args:
        operator: `random`, `mutation`, `crossover`, or the name of a warm start.
        parents: Positions in the list of parents: none, one or two.
        genome: The tokens.
    """

    operator: str
    parents: tuple[int, ...]
    genome: Genome


class RandomGenomes:
    """Draws uniformly from the genomes that are within the limits and were not seen before."""

    def __init__(self, genes: tuple[Gene, ...], limits: ParamLimits) -> None:
        self._genes = genes
        self._costs = [gene.costs for gene in genes]
        self._limits = limits

    def draw(self, rng: random.Random, seen: Seen) -> Genome | None:
        """A genome that is not in `seen`; None if there seems to be none.

        Raises:
            InfeasibleLimitError: No genome, or almost none, is within the limits.
        """
        for _ in range(_RANDOM_ATTEMPTS):
            chosen = draw(self._costs, rng, self._limits)
            genome = tuple(gene.choices[k] for gene, k in zip(self._genes, chosen, strict=True))
            if genome not in seen:
                return genome
        unseen = [genome for genome in self._listed if genome not in seen]
        return rng.choice(unseen) if unseen else None

    @cached_property
    def _listed(self) -> list[Genome]:
        """All genomes within the limits if the space is small, else an empty list."""
        if prod(len(gene.choices) for gene in self._genes) > _LISTED:
            return []
        return [
            genome
            for genome, priced in zip(
                product(*(gene.choices for gene in self._genes)),
                product(*self._costs),
                strict=True,
            )
            if self._limits.allow(sum(priced))
        ]


class Breeder:
    """Fills generations with new genomes.

    It holds only what is the same for all generations of a study.

    Args:
        genes: The genes of a genome.
        settings: The operators, how many children each makes, and the limits.
        seed: The study's seed.
    """

    def __init__(self, genes: tuple[Gene, ...], settings: SearchSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._operators: Operators = make_operators(genes, settings)
        self.random_genomes = RandomGenomes(genes, settings.limits)

    def breed(self, generation: int, parents: Sequence[Parent], seen: Seen) -> Iterator[Draft]:
        """The genomes of one generation: mutations first, then crossovers, then random ones.

        Args:
            generation: Its number, from which the draws are seeded.
            parents: Best first. If there are none, all genomes are random.
            seen: The genomes that were proposed before. Each new genome is added to it.

        Yields:
            At most a population of drafts; fewer if the space has no more.
        """
        for index in range(self._settings.population):
            rng = candidate_rng(self._seed, generation, index)
            draft = self.draft(index, parents, seen, rng)
            if draft is None:
                return
            yield draft

    def draft(
        self, index: int, parents: Sequence[Parent], seen: Seen, rng: random.Random
    ) -> Draft | None:
        """The genome of place `index`; None if the space has no more.

        If a child was seen before, another is made with the same generator, a bounded number of
        times. After that a random genome takes the place.

        Args:
            index: The place in a generation, which decides the operator.
            parents: Best first. If there are none, the genome is random.
            seen: The genomes that were proposed before. The new genome is added to it.
            rng: The only source of randomness.
        """
        draft = self.proposal(index, parents, seen, rng)
        if draft is not None:
            seen.add(draft.genome)
        return draft

    def proposal(
        self, index: int, parents: Sequence[Parent], seen: Seen, rng: random.Random
    ) -> Draft | None:
        """As `draft`, but the genome is not added to `seen`: others may be proposed beside it."""
        draft = self._child(index, parents, seen, rng)
        if draft is None:
            genome = self.random_genomes.draw(rng, seen)
            draft = None if genome is None else Draft("random", (), genome)
        return draft

    def _child(
        self, index: int, parents: Sequence[Parent], seen: Seen, rng: random.Random
    ) -> Draft | None:
        """A new child by the operator of place `index`; None if a random genome is to be drawn."""
        mutations, crossovers = self._settings.mutations, self._settings.crossovers
        if index < mutations and parents:
            operator, needed = "mutation", 1
        elif mutations <= index < mutations + crossovers and len(parents) > 1:
            operator, needed = "crossover", 2
        else:
            return None
        for _ in range(_CHILD_ATTEMPTS):
            chosen = tuple(rng.sample(range(len(parents)), needed))
            if operator == "mutation":
                genome = self._operators.mutate(parents[chosen[0]], rng)
            else:
                genome = self._operators.cross(parents[chosen[0]], parents[chosen[1]], rng)
            if genome is not None and genome not in seen:
                return Draft(operator, chosen, genome)
        return None
