"""Warm starts: half of generation 0 is informed, within the limits, and a function of the seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from operator import ne
from statistics import mean

import pytest
from known_fitness import loss_of, searched, tiny_space, vit_space

from glora_search.proposing import SearchSettings, SteadyStateProposer, make_proposer
from glora_search.proposing.founders import weights_of
from search_spaces import InvalidConfigError, ParamLimits

SPACE = vit_space(2)
SMALL = SearchSettings(population=13, mutations=6, crossovers=6, parents=4)
# Uniform subnets of this space have 250 to 1,450 parameters.
LIMITS = [
    ParamLimits(),
    ParamLimits(max_params=400),
    ParamLimits(min_params=1_300),
    ParamLimits(min_params=700, max_params=720),
]


def scores(space=SPACE):
    """How much each choice takes away of the loss, where the others are as they are on average."""
    rng = random.Random(0)
    subnets = [space.sample(rng) for _ in range(300)]
    known = [(space.encode(s), loss_of(space, s)) for s in subnets]
    level = mean(loss for _, loss in known)
    return {
        gene.name: {
            token: level - mean([loss for genome, loss in known if genome[g] == token] or [level])
            for token in gene.choices
        }
        for g, gene in enumerate(space.genes)
    }


SCORES = scores()
KINDS = ["median-rank", "sensitivity", "spread"]


def first(settings, seed=3, space=SPACE, sensitivity=SCORES):
    return make_proposer(space, settings, seed, sensitivity=sensitivity).propose(0, [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_half_of_the_first_generation_is_informed(kind, limits):
    """The other half has the very subnets of a random start, so that the two can be compared."""
    random_start = first(replace(SMALL, limits=limits))
    warm = first(replace(SMALL, limits=limits, warm_start=kind))
    assert [c.operator for c in warm] == [kind] * 6 + ["random"] * 7
    assert warm[6:] == random_start[6:]
    assert [c.place for c in warm] == [(0, k) for k in range(13)]
    assert len({c.subnet.digest for c in warm}) == 13
    assert all(limits.allow(c.n_params) and c.n_params == SPACE.n_params(c.subnet) for c in warm)
    assert first(replace(SMALL, limits=limits, warm_start=kind)) == warm
    assert first(replace(SMALL, limits=limits, warm_start=kind), seed=4) != warm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["evolution", "random", "nsgaii"])
def test_every_sampler_starts_from_the_same_generation(kind, sampler):
    """And goes on from it: later generations read outcomes alone."""
    settings = replace(SMALL, warm_start=kind)
    sampled = replace(settings, sampler=sampler)
    assert first(sampled) == first(settings)
    proposer = make_proposer(SPACE, sampled, seed=3, sensitivity=SCORES)
    assert len({o.candidate.subnet.digest for o in searched(SPACE, proposer, range(2))}) == 26


def test_the_first_founder_has_the_middle_choice_of_every_gene():
    """The others differ from it in one to three genes."""
    founders = [SPACE.encode(c.subnet) for c in first(replace(SMALL, warm_start="median-rank"))][:6]
    for gene, token in zip(SPACE.genes, founders[0], strict=True):
        cost = gene.costs[gene.choices.index(token)]
        assert sum(c < cost for c in gene.costs) == (len(gene.costs) - 1) // 2
    assert all(1 <= sum(map(ne, other, founders[0])) <= 3 for other in founders[1:])


@pytest.mark.parametrize(
    ("limits", "low", "high"),
    [(ParamLimits(max_params=180), 140, 180), (ParamLimits(min_params=900), 900, 1_100)],
    ids=str,
)
def test_a_middle_outside_of_the_limits_is_moved_into_them(limits, low, high):
    """By steps to the next choice, and no more of them than it takes; mutations start there."""
    settings = replace(SMALL, warm_start="median-rank", limits=limits, population=40)
    founders = first(settings)[:20]
    assert {c.operator for c in founders} == {"median-rank"}
    assert low <= founders[0].n_params <= high


def test_choices_with_higher_scores_are_drawn_more_often():
    settings = replace(SMALL, warm_start="sensitivity", population=400)
    warm, cold = first(settings)[:200], first(SMALL)
    gene = max(range(20), key=lambda g: max(SCORES[SPACE.genes[g].name].values()))
    name = SPACE.genes[gene].name
    counts = Counter(SPACE.encode(c.subnet)[gene] for c in warm)
    ranked = sorted(SCORES[name], key=SCORES[name].__getitem__)
    assert counts[ranked[-1]] > counts[ranked[0]]
    losses = [mean(loss_of(SPACE, c.subnet) for c in each) for each in (warm, cold)]
    assert losses[0] < losses[1]


def test_weights_grow_with_scores_and_stay_within_bounds():
    """Whatever the unit of the scores, and where one of them dwarfs all others."""
    genes = SPACE.genes[:2]
    table = {genes[0].name: dict.fromkeys(genes[0].choices, 0.0)}
    table[genes[1].name] = dict(zip(genes[1].choices, (-1e9, -1.0, 0.0, 1.0, 1e12), strict=True))
    (flat, steep) = weights_of(genes, table)
    assert set(flat) == {1.0}
    assert list(steep) == sorted(steep)
    assert max(steep) / min(steep) <= 7.4 * 1.01
    millionth = {name: {t: s / 1e6 for t, s in each.items()} for name, each in SCORES.items()}
    expected = [pytest.approx(weights) for weights in weights_of(SPACE.genes, SCORES)]
    assert weights_of(SPACE.genes, millionth) == expected
    assert weights_of(genes[:1], table) == [(1.0,) * 5]


def test_scores_that_are_missing_are_told():
    settings = replace(SMALL, warm_start="sensitivity")
    with pytest.raises(InvalidConfigError, match="needs the scores"):
        make_proposer(SPACE, settings, 0)
    with pytest.raises(InvalidConfigError, match=r"lack 'blocks\.0\.attn\.qkv\.A'"):
        make_proposer(SPACE, settings, 0, sensitivity={})


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_with_fewer_subnets_than_founders_is_proposed_whole(kind):
    space = tiny_space()
    settings = replace(SMALL, warm_start=kind, population=40)
    sensitivity = {gene.name: dict.fromkeys(gene.choices, 1.0) for gene in space.genes}
    assert len(first(settings, space=space, sensitivity=sensitivity)) == space.size == 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_steady_search_starts_warm_too(kind):
    settings = replace(SMALL, warm_start=kind, mode="steady-state")
    children = SteadyStateProposer(SPACE, settings, 3, sensitivity=SCORES).children([])
    made = [candidate.operator for candidate in islice(children, 13)]
    assert made == [kind] * 6 + ["random"] * 7


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_a_spread_start_has_one_subnet_of_each_band_of_sizes(limits):
    """Uniform draws are nearly all of one size; a front starts from all of them."""
    smallest, largest = (SPACE.n_params(s) for s in (SPACE.min_subnet(), SPACE.max_subnet()))
    low, high = max(limits.min_params, smallest), min(limits.max_params or largest, largest)
    spread = first(replace(SMALL, limits=limits, warm_start="spread"))[:6]
    for band, candidate in enumerate(spread):
        assert low + (high - low) * band // 6 <= candidate.n_params
        assert candidate.n_params <= low + (high - low) * (band + 1) // 6
    if not limits.min_params:
        assert spread[0].subnet == SPACE.min_subnet()
