"""Operators: each makes a child from one parent or two.

An operator is a small callable on genomes (tuples of tokens in the order of the genes). It returns
a child within the parameter limits, or None if the attempt gave none; the caller decides what to do
then. An operator fixes some genes and draws the others uniformly from the combinations that keep
the limits, given the cost of the fixed genes.

There are two sets:

- Published (GLoRA, arXiv 2306.07967). Mutation redraws each gene of a parent with probability 0.2.
  Crossover takes each gene from one of two parents.
- Local. Mutation redraws one to three genes to other tokens. Crossover joins the head of one parent
  and the tail of another at a block boundary, so that genes that were selected together stay
  together. Children share blocks with their parents, so a batch of them is evaluated faster. At
  equal evaluations the published ones find a lower val loss (docs/science.md).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import ne
from typing import Final, Protocol

from glora_search.proposing.settings import SearchSettings
from search_spaces import Gene, Genome, InfeasibleLimitError, ParamLimits
from search_spaces.draws import draw

_MOST_REDRAWN: Final = 3
_MAX_DRAWS: Final = 200  # after these a child is given up; the next attempt has other parents

_Options = tuple[tuple[str, ...], tuple[int, ...]]
"""What may be drawn for one gene: tokens, and the cost of each."""


@dataclass(frozen=True, eq=False)
class Parent:
    """A genome with the cost of each token. The costs are looked up once, for all children."""

    genome: Genome
    costs: tuple[int, ...]

    @cached_property
    def spent(self) -> list[int]:
        """The cost of the first k genes, for k from 0 to all of them."""
        return list(accumulate(self.costs, initial=0))

    @classmethod
    def of(cls, genes: Sequence[Gene], genome: Genome) -> Parent:
        """The parent with this genome.

        Raises:
            ValueError: A token is not a choice of its gene.
        """
        return cls(
            genome,
            tuple(
                gene.costs[gene.choices.index(token)]
                for gene, token in zip(genes, genome, strict=True)
            ),
        )


class Mutation(Protocol):
    """Makes a child from one parent."""

    def __call__(self, parent: Parent, rng: random.Random) -> Genome | None:
        """A child within the limits, or None."""
        ...


class Crossover(Protocol):
    """Makes a child from two parents."""

    def __call__(self, first: Parent, second: Parent, rng: random.Random) -> Genome | None:
        """A child within the limits, or None."""
        ...


@dataclass(frozen=True)
class RedrawEach:
    """Published mutation: redraws each gene with `probability`, from all of its choices."""

    genes: tuple[Gene, ...]
    limits: ParamLimits
    probability: float

    def __call__(self, parent: Parent, rng: random.Random) -> Genome | None:
        """A child within the limits, or None."""
        open_genes = [g for g in range(len(self.genes)) if rng.random() < self.probability]
        options = {g: (self.genes[g].choices, self.genes[g].costs) for g in open_genes}
        return _redrawn(parent, options, self.limits, rng)


@dataclass(frozen=True)
class RedrawFew:
    """Local mutation: redraws one to three genes, each to another token than the parent's."""

    genes: tuple[Gene, ...]
    limits: ParamLimits

    def __call__(self, parent: Parent, rng: random.Random) -> Genome | None:
        """A child within the limits, or None."""
        free = self._free
        if not free:
            return None
        count = rng.randint(1, min(_MOST_REDRAWN, len(free)))
        options = {
            g: _without(self.genes[g], parent.genome[g]) for g in sorted(rng.sample(free, count))
        }
        return _redrawn(parent, options, self.limits, rng)

    @cached_property
    def _free(self) -> list[int]:
        return [g for g, gene in enumerate(self.genes) if len(gene.choices) > 1]


@dataclass(frozen=True)
class MixGenes:
    """Published crossover: takes each gene from either parent with equal probability."""

    limits: ParamLimits

    def __call__(self, first: Parent, second: Parent, rng: random.Random) -> Genome | None:
        """A child within the limits, or None."""
        pairs = zip(first.genome, second.genome, first.costs, second.costs, strict=True)
        options = {
            g: ((mine, other), (cost, other_cost))
            for g, (mine, other, cost, other_cost) in enumerate(pairs)
            if mine != other
        }
        return _redrawn(first, options, self.limits, rng)


@dataclass(frozen=True, eq=False)
class CutAtBlock:
    """Local crossover: joins the head of one parent and the tail of another between two blocks.

    The cut is drawn uniformly from those that keep the limits and give a child that differs from
    both parents.

    Args:
        cuts: Positions in the genome where a block begins, without 0.
        limits: Limits on the child.
    """

    cuts: tuple[int, ...]
    limits: ParamLimits

    def __call__(self, first: Parent, second: Parent, rng: random.Random) -> Genome | None:
        """A child within the limits, or None."""
        allowed = _allowed_cuts(self, first, second)
        if not allowed:
            return None
        cut = rng.choice(allowed)
        return first.genome[:cut] + second.genome[cut:]


@lru_cache(maxsize=512)
def _allowed_cuts(operator: CutAtBlock, first: Parent, second: Parent) -> list[int]:
    """The cuts that two parents allow. They are cached: late in a search a pair is tried many times
    before a child is new.
    """
    differ = list(map(ne, first.genome, second.genome))
    if True not in differ:
        return []
    begin, end = differ.index(True), len(differ) - differ[::-1].index(True)
    head, tail = first.spent, second.spent
    return [
        cut
        for cut in operator.cuts
        if begin < cut < end and operator.limits.allow(head[cut] + tail[-1] - tail[cut])
    ]


@dataclass(frozen=True)
class Operators:
    """A mutation and a crossover that belong together."""

    mutate: Mutation
    cross: Crossover


def make_operators(genes: tuple[Gene, ...], settings: SearchSettings) -> Operators:
    """The operators that `settings.operators` names, for genomes of `genes`."""
    limits = settings.limits
    if settings.operators == "published":
        return Operators(RedrawEach(genes, limits, settings.mutation_probability), MixGenes(limits))
    return Operators(RedrawFew(genes, limits), CutAtBlock(cut_points(genes), limits))


def cut_points(genes: Sequence[Gene]) -> tuple[int, ...]:
    """The positions at which a genome may be cut: between blocks. If there is only one block, they
    are between layers; if there is only one layer, between any two genes.

    The block of a layer is its name up to the last number: `blocks.3.attn.qkv` belongs to
    `blocks.3`, Swin's `layers.0.blocks.1.mlp.fc1` to `layers.0.blocks.1`.
    """
    for units in (
        [_block_of(gene.layer) for gene in genes],
        [gene.layer for gene in genes],
        [gene.name for gene in genes],
    ):
        if cuts := tuple(g for g in range(1, len(units)) if units[g] != units[g - 1]):
            return cuts
    return ()


def _block_of(layer: str) -> str:
    numbered = re.match(r"(?:.*\.)?[0-9]+(?=\.|$)", layer)
    return numbered.group() if numbered else layer


def _without(gene: Gene, token: str) -> _Options:
    """The choices of `gene` other than `token`, with their costs."""
    kept = [k for k, choice in enumerate(gene.choices) if choice != token]
    return tuple(gene.choices[k] for k in kept), tuple(gene.costs[k] for k in kept)


def _redrawn(
    parent: Parent, options: Mapping[int, _Options], limits: ParamLimits, rng: random.Random
) -> Genome | None:
    """`parent` with the genes in `options` redrawn, uniformly within `limits`."""
    if not options:
        return None
    kept = sum(parent.costs) - sum(parent.costs[g] for g in options)
    try:
        drawn = draw(
            [costs for _, costs in options.values()], rng, limits.after(kept), max_draws=_MAX_DRAWS
        )
    except InfeasibleLimitError:
        return None
    child = list(parent.genome)
    for (g, (tokens, _)), k in zip(options.items(), drawn, strict=True):
        child[g] = tokens[k]
    return tuple(child)
