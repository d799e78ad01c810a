"""Diversity: parents keep a distance from each other, and the best stays one of them."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from operator import ne

import pytest
from known_fitness import searched, vit_space

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError

SPACE = vit_space(2)
SMALL = SearchSettings(population=30, mutations=15, crossovers=15, parents=6)


@pytest.fixture(scope="module")
def history() -> list[Outcome]:
    """Four generations without diversity: many outcomes are one mutation from another."""
    return searched(SPACE, make_proposer(SPACE, SMALL, seed=2), range(4))


def parents_of(least: int, history: list[Outcome]) -> list[Outcome]:
    """The subnets that the next generation names as parents, best first."""
    search = replace(SMALL, diversity=least, population=60, mutations=60, crossovers=0)
    proposed = make_proposer(SPACE, search, seed=0).propose(4, history)
    named = {digest for candidate in proposed for digest in candidate.parents}
    return sorted((o for o in history if o.candidate.subnet.digest in named), key=BY_LOSS.rank)


def distance(one: Outcome, other: Outcome) -> int:
    tokens = (o.candidate.subnet.to_params().values() for o in (one, other))
    return sum(map(ne, *tokens))


@pytest.mark.parametrize("least", [0, 1, 3, 5, 8, 12])
def test_parents_are_chosen_best_first_with_a_distance_between_them(least, history) -> None:
    """By the definition: an outcome is passed over exactly if it is near to a better parent."""
    expected: list[Outcome] = []
    for outcome in sorted(history, key=BY_LOSS.rank):
        if all(distance(outcome, parent) >= least for parent in expected):
            expected.append(outcome)
    parents = parents_of(least, history)
    assert parents == expected[:6]
    assert all(distance(a, b) >= least for a, b in combinations(parents, 2))
    assert parents[0] == min(history, key=BY_LOSS.rank)


def test_without_diversity_parents_are_near_to_each_other(history) -> None:
    """Otherwise the key would change nothing."""
    assert min(distance(a, b) for a, b in combinations(parents_of(0, history), 2)) < 4
    assert parents_of(0, history) != parents_of(4, history)
    assert len(parents_of(21, history)) == 1, "no two subnets differ in 21 of 20 genes"


def test_the_order_of_outcomes_does_not_matter(history) -> None:
    search = replace(SMALL, diversity=5)
    expected = make_proposer(SPACE, search, seed=2).propose(4, history)
    shuffled = random.Random(0).sample(history, len(history))
    assert make_proposer(SPACE, search, seed=2).propose(4, shuffled) == expected


@pytest.mark.parametrize("fields", [{"sampler": "nsgaii"}, {"mode": "steady-state"}])
def test_diversity_needs_generations_that_are_bred(fields) -> None:
    with pytest.raises(InvalidConfigError, match="diversity needs the sampler evolution"):
        SearchSettings(diversity=1, **fields)
    with pytest.raises(InvalidConfigError, match="diversity must be at least 0"):
        SearchSettings(diversity=-1)
