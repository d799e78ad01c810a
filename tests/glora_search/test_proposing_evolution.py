"""Evolution: who the parents are, who fills which place, and that it beats random search."""

import random
from collections import Counter
from dataclasses import replace
from statistics import mean

import pytest
from known_fitness import searched, vit_space

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.proposing.evolution import fittest, propose_generation
from glora_search.study.objectives import BY_LOSS, BY_TOP1
from search_spaces import InvalidConfigError, ParamLimits

SPACE = vit_space(4)


@pytest.mark.parametrize("operators", ["local", "published"])
def test_places_are_filled_by_mutations_then_crossovers_then_random_subnets(operators):
    search = SearchSettings(operators=operators, population=20, mutations=8, crossovers=7)
    history = searched(SPACE, make_proposer(SPACE, search, seed=0), range(2))
    made_by = [o.candidate.operator for o in history if o.candidate.generation == 1]
    assert made_by == ["mutation"] * 8 + ["crossover"] * 7 + ["random"] * 5
    n_parents = {"mutation": 1, "crossover": 2, "random": 0}
    assert all(len(o.candidate.parents) == n_parents[o.candidate.operator] for o in history)


@pytest.mark.parametrize("objectives", [BY_LOSS, BY_TOP1], ids=str)
def test_parents_are_the_best_of_all_earlier_generations(objectives):
    """Elitist: a good subnet of generation 0 still has children in generation 3."""
    search = SearchSettings(
        population=30, mutations=15, crossovers=15, parents=5, objectives=objectives
    )
    proposer = make_proposer(SPACE, search, seed=0)
    history = searched(SPACE, proposer, range(3))
    # Make three outcomes of the first generation better than anything else.
    for k in range(3):
        history[k] = replace(history[k], loss=0.01 * (k + 1), top1=1.0)
    best = sorted(history, key=objectives.rank)[:5]
    parents = {digest for c in proposer.propose(3, history) for digest in c.parents}
    assert parents == {o.candidate.subnet.digest for o in best}
    assert {o.candidate.subnet.digest for o in history[:3]} < parents


def test_a_child_comes_from_the_parents_that_it_names():
    search = SearchSettings(operators="local", population=30, mutations=15, crossovers=15)
    history = searched(SPACE, make_proposer(SPACE, search, seed=0), range(3))
    genomes = {o.candidate.subnet.digest: SPACE.encode(o.candidate.subnet) for o in history}
    for outcome in history:
        child = genomes[outcome.candidate.subnet.digest]
        parents = [genomes[digest] for digest in outcome.candidate.parents]
        if outcome.candidate.operator == "mutation":
            changed = sum(mine != hers for mine, hers in zip(child, parents[0], strict=True))
            assert 1 <= changed <= 3
        if outcome.candidate.operator == "crossover":
            assert parents[0] != parents[1]
            assert any(child == parents[0][:c] + parents[1][c:] for c in (10, 20, 30))


def test_ties_in_top1_are_broken_by_loss():
    """On 200 images half the candidates tie."""
    history = searched(SPACE, make_proposer(SPACE, SearchSettings(), seed=0), range(1))
    tied = [replace(o, top1=0.5) for o in history]
    assert fittest(tied, BY_TOP1, 5) == sorted(tied, key=lambda o: o.loss)[:5]


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"sampler": "random"}, {"sampler": "nsgaii"}], ids=str)
def test_a_price_is_that_of_the_size(fields):
    """A share of the limit, or of the largest subnet where there is no limit."""
    plain = make_proposer(SPACE, SearchSettings(**fields), seed=0)
    priced = SearchSettings(**fields, size_price=0.3)
    limited = replace(priced, limits=ParamLimits(max_params=1_500))
    history = searched(SPACE, plain, range(1))
    largest = SPACE.n_params(SPACE.max_subnet())
    for search, most in ((priced, largest), (limited, 1_500)):
        for candidate in make_proposer(SPACE, search, seed=0).propose(1, history):
            assert candidate.price == pytest.approx(0.3 * candidate.n_params / most)
            assert 0 < candidate.price <= 0.3
    assert all(c.price == 0 for c in plain.propose(1, history))


def test_a_price_makes_the_search_look_for_small_subnets():
    """With a price that is all that counts the parents are the smallest."""
    search = SearchSettings(size_price=100.0)
    history = searched(SPACE, make_proposer(SPACE, search, seed=0), range(6))
    means = [
        mean(o.candidate.n_params for o in history if o.candidate.generation == g) for g in (0, 5)
    ]
    assert means[1] < 0.6 * means[0]


def test_an_outcome_that_is_not_a_number_is_no_parent():
    """It would make the order of ranks depend on the order of arrival."""
    history = searched(SPACE, make_proposer(SPACE, SearchSettings(), seed=0), range(1))
    history[0] = replace(history[0], loss=float("nan"))
    history[1] = replace(history[1], loss=float("-inf"))
    chosen = fittest(history, BY_LOSS, 50)
    assert len(chosen) == 48
    assert not {(0, 0), (0, 1)} & {o.candidate.place for o in chosen}


def test_one_parent_has_mutants_but_no_crossovers():
    """The places of crossovers go to random subnets."""
    search = SearchSettings(population=10, mutations=4, crossovers=4, parents=1)
    history = searched(SPACE, make_proposer(SPACE, search, seed=0), range(2))
    made_by = [o.candidate.operator for o in history if o.candidate.generation == 1]
    assert made_by == ["mutation"] * 4 + ["random"] * 6


@pytest.mark.parametrize("operators", ["local", "published"])
@pytest.mark.parametrize(
    "limits",
    [
        ParamLimits(max_params=1_000),
        ParamLimits(min_params=2_200),
        ParamLimits(min_params=1_500, max_params=1_600),
    ],
    ids=str,
)
def test_limits_do_not_turn_children_into_random_subnets(operators, limits):
    """Ten generations under limits that few random subnets meet."""
    search = SearchSettings(operators=operators, limits=limits)
    history = searched(SPACE, make_proposer(SPACE, search, seed=0), range(10))
    made_by = Counter(o.candidate.operator for o in history if o.candidate.generation)
    assert made_by["mutation"] + made_by["crossover"] >= 0.95 * 450


def test_a_search_that_has_converged_still_proposes_new_subnets():
    """Two parents that differ in one gene: crossover has nothing to offer, and says so in time."""
    search = SearchSettings(population=20, mutations=5, crossovers=15, parents=2)
    proposer = make_proposer(SPACE, search, seed=0)
    history = searched(SPACE, proposer, range(1))
    genome = list(SPACE.encode(history[0].candidate.subnet))
    genome[0] = next(t for t in SPACE.genes[0].choices if t != genome[0])
    twin = replace(history[1].candidate, subnet=SPACE.decode(tuple(genome)))
    history[0] = replace(history[0], loss=0.0)
    history[1] = replace(history[1], candidate=twin, loss=0.0)
    proposed = proposer.propose(1, history)
    assert Counter(c.operator for c in proposed) == {"mutation": 5, "random": 15}
    assert len({c.subnet.digest for c in proposed}) == 20


def test_a_history_of_another_space_is_refused():
    """Not bred from by accident."""
    history = searched(SPACE, make_proposer(SPACE, SearchSettings(), seed=0), range(1))
    with pytest.raises(InvalidConfigError, match="is not in this space"):
        make_proposer(vit_space(3), SearchSettings(), seed=0).propose(1, history)


def test_the_function_and_the_proposer_agree():
    """`propose_generation` is the whole of it; the proposer holds tables alone."""
    search = SearchSettings()
    proposer = make_proposer(SPACE, search, seed=5)
    history = searched(SPACE, proposer, range(2))
    shuffled = random.Random(0).sample(history, len(history))
    assert propose_generation(SPACE, search, 5, 2, shuffled) == proposer.propose(2, history)


@pytest.mark.slow
@pytest.mark.parametrize("operators", ["local", "published"])
def test_evolution_beats_random_search_at_equal_budget(operators):
    """420 evaluations each, five landscapes with interactions; better on every one of them."""
    space = vit_space(6)
    gains = []
    for landscape in "abcde":
        best = {}
        for sampler in ("evolution", "random"):
            search = SearchSettings(
                operators=operators, population=20, mutations=10, crossovers=10, parents=5
            )
            if sampler == "random":
                search = replace(search, mutations=0, crossovers=0)
            proposer = make_proposer(space, search, seed=ord(landscape))
            history = searched(space, proposer, range(21), landscape)
            assert len(history) == 420
            best[sampler] = min(o.loss for o in history)
        gains.append(best["random"] - best["evolution"])
    assert min(gains) > 0
    assert mean(gains) > 0.03
