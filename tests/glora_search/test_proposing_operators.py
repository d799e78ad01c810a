"""Operators: what they change, what they keep, and that limits are met by construction."""

import math
import random
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_fitness import vit_space

from glora_search.proposing import SearchSettings
from glora_search.proposing.operators import (
    CutAtBlock,
    MixGenes,
    Parent,
    RedrawEach,
    RedrawFew,
    cut_points,
    make_operators,
)
from search_spaces import NO_LIMITS, Gene, LayerSpec, ParamLimits, SearchSpace

SPACE = vit_space(4)
GENES = SPACE.genes
# Uniform subnets of this space have 750 to 2,600 parameters.
LIMITS = [
    NO_LIMITS,
    ParamLimits(max_params=1_000),
    ParamLimits(min_params=2_200),
    ParamLimits(min_params=1_500, max_params=1_700),
]


def parent(seed, limits=NO_LIMITS, space=SPACE):
    return Parent.of(space.genes, space.encode(space.sample(random.Random(seed), limits)))


def n_params(genome):
    return sum(Parent.of(GENES, genome).costs)


@pytest.mark.parametrize("operators", ["local", "published"])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_children_are_genomes_of_the_space_within_the_limits(operators, limits, seed):
    rng = random.Random(seed)
    made = make_operators(GENES, SearchSettings(operators=operators, limits=limits))
    first, second = parent(2 * seed, limits), parent(2 * seed + 1, limits)
    for child in (made.mutate(first, rng), made.cross(first, second, rng)):
        if child is not None:
            SPACE.validate(SPACE.decode(child))
            assert limits.allow(n_params(child))


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_limits_leave_nearly_every_attempt_a_child(limits):
    """The reason for drawing what may change instead of rejecting whole children.

    The published operators change many genes, so there is nearly always a way to change them.
    """
    rng = random.Random(0)
    made = make_operators(GENES, SearchSettings(operators="published", limits=limits))
    children = []
    for seed in range(100):
        first, second = parent(2 * seed, limits), parent(2 * seed + 1, limits)
        children += [made.mutate(first, rng), made.cross(first, second, rng)]
    assert children.count(None) <= 10


def test_local_mutation_redraws_one_to_three_genes_to_other_tokens():
    """Each number as often as the others, each gene as often as the others."""
    mutate = RedrawFew(GENES, NO_LIMITS)
    rng = random.Random(0)
    numbers, places = Counter(), Counter()
    for seed in range(1_500):
        mother = parent(seed % 40)
        child = mutate(mother, rng)
        changed = [g for g in range(len(GENES)) if child[g] != mother.genome[g]]
        numbers[len(changed)] += 1
        places.update(changed)
    assert set(numbers) == {1, 2, 3}
    assert all(abs(n - 500) < 5 * math.sqrt(500) for n in numbers.values())
    expected = 3_000 / len(GENES)
    assert all(abs(places[g] - expected) < 5 * math.sqrt(expected) for g in range(len(GENES)))


def test_published_mutation_redraws_a_fifth_of_the_genes():
    """A redrawn gene keeps its token by chance, so what is seen to change is a little less."""
    mutate = RedrawEach(GENES, NO_LIMITS, 0.2)
    rng = random.Random(0)
    children, changed = 500, 0
    for seed in range(children):
        mother = parent(seed % 40)
        child = mutate(mother, rng)
        changed += sum(mine != hers for mine, hers in zip(child, mother.genome, strict=True))
    expected = children * sum(0.2 * (1 - 1 / len(gene.choices)) for gene in GENES)
    assert abs(changed - expected) < 5 * math.sqrt(expected)


def test_published_crossover_takes_each_gene_from_either_parent():
    cross = MixGenes(NO_LIMITS)
    rng = random.Random(0)
    from_first, differing = 0, 0
    for seed in range(200):
        first, second = parent(2 * seed), parent(2 * seed + 1)
        child = cross(first, second, rng)
        for mine, one, other in zip(child, first.genome, second.genome, strict=True):
            assert mine in (one, other)
            from_first += mine == one != other
            differing += one != other
    assert abs(from_first - differing / 2) < 5 * math.sqrt(differing / 4)


@pytest.mark.slow
def test_published_crossover_is_uniform_among_the_children_that_the_limits_admit():
    """Against the list of all children of two parents that differ in ten genes."""
    first, second = parent(0), parent(1)
    differing = [g for g, t in enumerate(first.genome) if t != second.genome[g]][:10]
    other = list(first.genome)
    for g in differing:
        other[g] = second.genome[g]
    second = Parent.of(GENES, tuple(other))
    limits = ParamLimits(max_params=min(sum(first.costs), sum(second.costs)))
    allowed = []
    for picks in product((first.genome, second.genome), repeat=len(differing)):
        child = list(first.genome)
        for g, genome in zip(differing, picks, strict=True):
            child[g] = genome[g]
        if limits.allow(n_params(child)):
            allowed.append(tuple(child))
    assert 100 < len(allowed) < 1_024
    rng = random.Random(0)
    counts = Counter(MixGenes(limits)(first, second, rng) for _ in range(20 * len(allowed)))
    assert counts.keys() <= set(allowed)
    chi_square = sum((counts[child] - 20) ** 2 / 20 for child in allowed)
    assert chi_square < len(allowed) + 6 * math.sqrt(2 * len(allowed))


def test_block_crossover_joins_a_head_and_a_tail_at_every_boundary_alike():
    """Four blocks have three boundaries."""
    cuts = cut_points(GENES)
    assert cuts == (10, 20, 30)
    first, second = parent(0), parent(1)
    rng = random.Random(0)
    expected = {first.genome[:cut] + second.genome[cut:] for cut in cuts}
    counts = Counter(CutAtBlock(cuts, NO_LIMITS)(first, second, rng) for _ in range(900))
    assert counts.keys() == expected
    assert all(abs(n - 300) < 5 * math.sqrt(300) for n in counts.values())


def test_block_crossover_cuts_only_where_the_limits_allow():
    first, second = parent(0), parent(1)
    by_cost = sorted(
        (first.genome[:cut] + second.genome[cut:] for cut in (10, 20, 30)), key=n_params
    )
    limits = ParamLimits(max_params=n_params(by_cost[0]))
    rng = random.Random(0)
    cross = CutAtBlock((10, 20, 30), limits)
    assert {cross(first, second, rng) for _ in range(30)} == {by_cost[0]}
    nothing = CutAtBlock((10, 20, 30), ParamLimits(max_params=n_params(by_cost[0]) - 1))
    assert nothing(first, second, rng) is None


def test_block_crossover_makes_no_copy_of_a_parent():
    """Parents that differ in one block have no cut between their differences."""
    first = parent(0)
    tokens = list(first.genome)
    tokens[12] = next(t for t in GENES[12].choices if t != tokens[12])
    second = Parent.of(GENES, tuple(tokens))
    assert CutAtBlock((10, 20, 30), NO_LIMITS)(first, second, random.Random(0)) is None


def test_twins_have_no_children():
    """Nor does a parent that mutation cannot change; the caller goes on with others."""
    rng = random.Random(0)
    assert MixGenes(NO_LIMITS)(parent(0), parent(0), rng) is None
    assert RedrawEach(GENES, NO_LIMITS, 0.0)(parent(0), rng) is None
    fixed = (Gene("fc.A", ("none",), (0,)),)
    assert RedrawFew(fixed, NO_LIMITS)(Parent.of(fixed, ("none",)), rng) is None


def test_a_mutation_that_no_limit_admits_is_none():
    """A parent at the limit whose redrawn genes are the cheapest already."""
    smallest = Parent.of(GENES, SPACE.encode(SPACE.min_subnet()))
    mutate = RedrawFew(GENES, ParamLimits(max_params=0))
    assert mutate(smallest, random.Random(0)) is None


def genes_of(*layers):
    space = SearchSpace(
        [LayerSpec(layer, 4, 4, bias=True) for layer in layers],
        {s: ["vector", "none"] for s in "ABCDE"},
    )
    return space.genes


@pytest.mark.parametrize(
    ("layers", "cut_before"),
    [
        (
            ["blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.attn.qkv", "blocks.10.attn.qkv"],
            ["blocks.1.attn.qkv", "blocks.10.attn.qkv"],
        ),
        (
            [
                "layers.0.blocks.0.attn.qkv",
                "layers.0.blocks.1.attn.qkv",
                "layers.0.blocks.1.mlp.fc1",
                "layers.1.downsample.reduction",
                "layers.1.blocks.0.attn.qkv",
            ],
            [
                "layers.0.blocks.1.attn.qkv",
                "layers.1.downsample.reduction",
                "layers.1.blocks.0.attn.qkv",
            ],
        ),
        (["blocks.0.attn.qkv", "blocks.0.attn.proj"], ["blocks.0.attn.proj"]),
        (["patch_embed.proj", "blocks.0.attn.qkv"], ["blocks.0.attn.qkv"]),
    ],
    ids=["vit", "swin", "one block", "without number"],
)
def test_cuts_lie_between_blocks_or_else_between_layers(layers, cut_before):
    genes = genes_of(*layers)
    assert [genes[cut].name for cut in cut_points(genes)] == [f"{name}.A" for name in cut_before]


def test_one_layer_is_cut_anywhere():
    assert cut_points(genes_of("fc")) == (1, 2, 3, 4)
    assert cut_points(genes_of("fc")[:1]) == ()
