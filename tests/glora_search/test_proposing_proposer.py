"""One contract, kept by every proposer: pure, deterministic, without duplicates, within limits."""

import logging
import random
import warnings
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_fitness import outcome_of, searched, tiny_space, vit_space

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.study.fronts import hypervolume, point, reference_of
from glora_search.study.objectives import BY_LOSS_AND_PARAMS, BY_TOP1
from search_spaces import InfeasibleLimitError, LayerSpec, ParamLimits, SearchSpace

SPACE = vit_space(2)
# Uniform subnets of this space have 250 to 1,450 parameters.
TIGHT = ParamLimits(max_params=500)
SEARCHES = {
    "local": SearchSettings(),
    "published": SearchSettings(operators="published"),
    "random": SearchSettings(sampler="random"),
    "tpe": SearchSettings(sampler="tpe"),
    "nsgaii": SearchSettings(sampler="nsgaii"),
    "surrogate": SearchSettings(surrogate="ridge", proposals=3),
    "diversity": SearchSettings(diversity=4),
    "two objectives": SearchSettings(objectives=BY_LOSS_AND_PARAMS),
    "two objectives, nsgaii": SearchSettings(objectives=BY_LOSS_AND_PARAMS, sampler="nsgaii"),
}
SMALL = {"population": 12, "mutations": 5, "crossovers": 5, "parents": 4}


@pytest.fixture(params=SEARCHES)
def search(request):
    """The settings of each kind of search, with a small population."""
    return replace(SEARCHES[request.param], **SMALL)


def test_generations_are_whole_distinct_and_in_their_place(search):
    history = searched(SPACE, make_proposer(SPACE, search, seed=3), range(4))
    candidates = [outcome.candidate for outcome in history]
    assert [c.place for c in candidates] == [(g, i) for g in range(4) for i in range(12)]
    assert len({c.subnet.digest for c in candidates}) == 48
    for candidate in candidates:
        assert candidate.n_params == SPACE.n_params(candidate.subnet)


def test_generation_zero_is_the_same_for_every_kind_of_search(search):
    """So that kinds of search are compared from the same start."""
    proposed = make_proposer(SPACE, search, seed=3).propose(0, [])
    evolution = SearchSettings(**SMALL)
    assert proposed == make_proposer(SPACE, evolution, seed=3).propose(0, [])
    assert {c.operator for c in proposed} == {"random"}
    assert all(c.parents == () for c in proposed)


def test_a_proposal_depends_on_the_outcomes_of_earlier_generations_alone(search):
    """Not on their order, not on who evaluated them, not on what has arrived of this generation."""
    proposer = make_proposer(SPACE, search, seed=3)
    history = searched(SPACE, proposer, range(3))
    expected = proposer.propose(2, [o for o in history if o.candidate.generation < 2])
    rng = random.Random(0)
    for arrived in (len(history), len(history) - 7):
        arrivals = [
            replace(outcome, worker=f"node:{rng.randrange(9)}", eval_s=rng.random())
            for outcome in history[:arrived]
        ]
        rng.shuffle(arrivals)
        assert make_proposer(SPACE, search, seed=3).propose(2, arrivals) == expected


def test_a_proposer_keeps_nothing_between_calls(search):
    """Generations may be asked for again, and in any order: a resume does."""
    proposer = make_proposer(SPACE, search, seed=3)
    history = searched(SPACE, proposer, range(3))
    again = [proposer.propose(generation, history) for generation in (2, 0, 1, 2)]
    by_generation = [
        [o.candidate for o in history if o.candidate.generation == g] for g in range(3)
    ]
    assert again == [by_generation[g] for g in (2, 0, 1, 2)]


def test_seeds_differ(search):
    one, other = (searched(SPACE, make_proposer(SPACE, search, seed=s), range(2)) for s in (1, 2))
    for generation in range(2):
        digests = [
            {o.candidate.subnet.digest for o in h if o.candidate.generation == generation}
            for h in (one, other)
        ]
        assert digests[0] != digests[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [TIGHT, ParamLimits(min_params=1_300), ParamLimits(min_params=700, max_params=720)],
    ids=str,
)
def test_every_candidate_is_within_the_limits(search, limits):
    proposer = make_proposer(SPACE, replace(search, limits=limits), seed=3)
    history = searched(SPACE, proposer, range(3))
    assert len(history) == 36
    assert all(limits.allow(SPACE.n_params(o.candidate.subnet)) for o in history)


@pytest.mark.slow
@pytest.mark.parametrize("operators", ["local", "published"])
@settings(deadline=None, derandomize=True, max_examples=25)
@given(slack=st.floats(0.01, 1), seed=st.integers(0, 2**63))
def test_every_limit_that_leaves_room_is_met_by_whole_generations(operators, slack, seed):
    smallest, largest = (SPACE.n_params(s) for s in (SPACE.min_subnet(), SPACE.max_subnet()))
    limits = ParamLimits(max_params=smallest + int(slack * (largest - smallest)))
    search = SearchSettings(operators=operators, limits=limits, **SMALL)
    history = searched(SPACE, make_proposer(SPACE, search, seed), range(3))
    assert len({o.candidate.subnet.digest for o in history}) == 36
    assert all(limits.allow(o.candidate.n_params) for o in history)


@pytest.mark.slow
def test_a_tiny_space_is_proposed_whole_and_then_ends(search):
    """Eight subnets for a population of fifty."""
    space = tiny_space()
    proposer = make_proposer(space, replace(search, population=50, mutations=25), seed=0)
    history = searched(space, proposer, range(3))
    assert len(history) == len({o.candidate.subnet.digest for o in history}) == space.size == 8
    assert proposer.propose(1, history) == []


@pytest.mark.slow
def test_the_last_subnets_of_a_small_space_are_found(search):
    """Children of the best would miss most of the 144, and random draws the last few."""
    choices = {"A": ["vector", "constant", "none"], "B": ["vector", "none"], "C": ["none"]}
    space = SearchSpace(
        [LayerSpec(f"blocks.{b}.fc", 4, 4, bias=True) for b in range(2)],
        {**choices, "D": ["none"], "E": ["vector", "none"]},
    )
    assert space.size == 144
    proposer = make_proposer(space, replace(search, population=40), seed=0)
    history = searched(space, proposer, range(5))
    assert len({o.candidate.subnet.digest for o in history}) == 144
    assert [sum(o.candidate.generation == g for o in history) for g in range(5)] == [
        40,
        40,
        40,
        24,
        0,
    ]


@pytest.mark.slow
def test_a_limit_that_admits_one_subnet_ends_after_it(search):
    """A huge space, but none of it within the limits."""
    limits = ParamLimits(max_params=0)
    proposer = make_proposer(SPACE, replace(search, limits=limits), seed=0)
    history = searched(SPACE, proposer, range(2))
    assert [o.candidate.subnet for o in history] == [SPACE.min_subnet()]


def test_limits_that_admit_nothing_are_refused_before_the_search(search):
    with pytest.raises(InfeasibleLimitError, match="admits no subnet"):
        make_proposer(SPACE, replace(search, limits=ParamLimits(min_params=10**6)), seed=0)


def test_failed_subnets_are_not_proposed_again_and_have_no_children(search):
    proposer = make_proposer(SPACE, search, seed=3)
    history = searched(SPACE, proposer, range(2))
    failed = [
        replace(o, loss=None, top1=None, error_type="OSError", error="disk")
        if o.candidate.index % 2
        else o
        for o in history
    ]
    proposed = proposer.propose(2, failed)
    lost = {o.candidate.subnet.digest for o in failed if o.failed}
    assert len(proposed) == 12
    assert not lost & {c.subnet.digest for c in proposed}
    assert not lost & {digest for c in proposed for digest in c.parents}


def test_a_search_goes_on_where_everything_failed(search):
    """Nothing to breed from: the generation is random."""
    proposer = make_proposer(SPACE, search, seed=3)
    failed = [
        replace(o, loss=None, top1=None, error_type="OSError", error="disk")
        for o in searched(SPACE, proposer, range(1))
    ]
    proposed = proposer.propose(1, failed)
    assert (
        len({c.subnet.digest for c in proposed} - {o.candidate.subnet.digest for o in failed}) == 12
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind for kind in SEARCHES if kind != "random" and "two" not in kind]
)
def test_every_kind_of_guided_search_finds_better_subnets_than_it_began_with(kind):
    """Top-1 as fitness, with its many ties."""
    search = replace(SEARCHES[kind], objectives=BY_TOP1, **SMALL)
    proposer = make_proposer(SPACE, search, seed=3)
    history = searched(SPACE, proposer, range(6))
    tops = [
        sum(o.top1 for o in history if o.candidate.generation == g) / search.population
        for g in range(6)
    ]
    assert tops[5] > tops[0] + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["evolution", "nsgaii"])
def test_a_search_of_two_objectives_covers_more_than_chance(sampler):
    """The same evaluations from the same start, by the hypervolume; a mean over seeds."""
    gains = []
    for seed in range(3):
        volumes = {}
        for each in (sampler, "random"):
            search = SearchSettings(
                sampler=each, objectives=BY_LOSS_AND_PARAMS, warm_start="spread", **SMALL
            )
            history = searched(SPACE, make_proposer(SPACE, search, seed), range(7))
            points = [point(outcome, BY_LOSS_AND_PARAMS) for outcome in history]
            reference = reference_of(history, BY_LOSS_AND_PARAMS)
            volumes[each] = hypervolume(points, reference)
        gains.append(volumes[sampler] - volumes["random"])
    assert sum(gains) / 3 > 0.02


def test_parents_of_two_objectives_are_on_or_near_the_front():
    """None of them is dominated by an outcome that is no parent."""
    search = SearchSettings(objectives=BY_LOSS_AND_PARAMS, warm_start="spread", **SMALL)
    proposer = make_proposer(SPACE, search, seed=3)
    history = searched(SPACE, proposer, range(4))
    parents = {digest for c in proposer.propose(4, history) for digest in c.parents}
    points = {o.candidate.subnet.digest: point(o, BY_LOSS_AND_PARAMS) for o in history}
    assert 1 < len(parents) <= search.parents
    for digest in parents:
        loss, n_params = points[digest]
        better = {d for d, p in points.items() if p[0] < loss and p[1] < n_params}
        assert better <= parents


def test_optuna_is_neither_heard_nor_reconfigured(search, caplog, capfd):
    """The command line configures logging; a proposer leaves Optuna's loggers as they were."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    handlers = list(logging.getLogger("optuna").handlers)
    logger = logging.getLogger(optuna.storages.InMemoryStorage.__module__)
    filters = list(logger.filters)
    proposer = make_proposer(SPACE, search, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposer.propose(1, searched(SPACE, proposer, range(1)))
    assert capfd.readouterr().err == ""
    assert optuna.logging.get_verbosity() == verbosity
    assert logging.getLogger("optuna").handlers == handlers
    assert logger.filters == filters


@pytest.mark.slow
def test_samplers_of_optuna_name_themselves_and_fill_up_with_random_subnets():
    """Under a limit that most of their suggestions miss."""
    for sampler in ("tpe", "nsgaii"):
        search = SearchSettings(sampler=sampler, limits=ParamLimits(max_params=150), **SMALL)
        history = searched(SPACE, make_proposer(SPACE, search, seed=3), range(4))
        operators = Counter(o.candidate.operator for o in history if o.candidate.generation)
        assert operators.keys() <= {sampler, "random"}
        assert operators[sampler] > 0
        assert len(history) == 48


def test_nsgaii_breeds_from_the_generation_before_although_some_of_it_failed():
    """Optuna counts completed trials, and would take an incomplete generation for its own."""
    search = SearchSettings(sampler="nsgaii", **SMALL)
    proposer = make_proposer(SPACE, search, seed=3)
    history = searched(SPACE, proposer, range(1))
    survivors = sorted(history, key=lambda o: o.loss)[:2]
    # Two survivors that agree in a gene have children that agree in it too, but for mutations of
    # one gene in a child; a random population would agree with them in a third of the cases.
    kept = [
        o
        if o in survivors
        else replace(o, loss=None, top1=None, error_type="OSError", error="disk")
        for o in history
    ]
    one, other = (SPACE.encode(o.candidate.subnet) for o in survivors)
    shared = [g for g in range(len(one)) if one[g] == other[g]]
    children = [SPACE.encode(c.subnet) for c in proposer.propose(1, kept)]
    agreeing = sum(child[g] == one[g] for child in children for g in shared)
    assert len(shared) >= 4
    assert agreeing > 0.8 * len(children) * len(shared)


def test_the_outcome_of_a_candidate_is_a_function_of_the_table():
    """The table itself: the same for the same subnet, and top-1 with ties."""
    proposed = make_proposer(SPACE, SearchSettings(), seed=0).propose(0, [])
    outcomes = [outcome_of(SPACE, c) for c in proposed]
    assert outcomes == [outcome_of(SPACE, c) for c in proposed]
    assert len({o.loss for o in outcomes}) == 50
    assert len({o.top1 for o in outcomes}) < 40
