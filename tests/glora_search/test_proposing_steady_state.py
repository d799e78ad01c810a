"""Steady-state evolution: what a child is made of, and what two runs have in common."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from statistics import mean

import pytest
from known_fitness import outcome_of, searched, tiny_space, vit_space

from glora_search.proposing import SearchSettings, SteadyStateProposer, make_proposer
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import InfeasibleLimitError, InvalidConfigError, ParamLimits

SPACE = vit_space(2)
SETTINGS = SearchSettings(
    mode="steady-state", population=10, generations=4, parents=4, mutations=4, crossovers=4
)
N = SETTINGS.n_candidates


def proposer(settings: SearchSettings = SETTINGS, seed: int = 1) -> SteadyStateProposer:
    return SteadyStateProposer(SPACE, settings, seed)


def steadily(
    settings: SearchSettings = SETTINGS,
    *,
    seed: int = 1,
    workers: int = 1,
    order: int = 0,
    history: Sequence[Outcome] = (),
    n: int = 10**9,
) -> list[Outcome]:
    """At most `n` further outcomes, with so many candidates under way, arriving in any order."""
    rng = random.Random(order)
    outcomes = list(history)
    children = proposer(settings, seed).children(history)
    under_way: list[Candidate] = []
    while len(outcomes) < len(history) + n:
        while len(under_way) < workers and (child := next(children, None)) is not None:
            under_way.append(child)
        if not under_way:
            break
        arrived = outcome_of(SPACE, under_way.pop(rng.randrange(len(under_way))))
        children.add(arrived)
        outcomes.append(arrived)
    return outcomes


def places(outcomes: Sequence[Outcome]) -> list[tuple[int, int]]:
    return sorted(o.candidate.place for o in outcomes)


ALL_PLACES = [(g, i) for g in range(5) for i in range(10)]


@pytest.mark.parametrize("workers", [1, 7, 30, 100])
def test_all_places_are_filled_with_subnets_of_their_own(workers: int) -> None:
    """However many are under way: more than a population, more than the search has."""
    outcomes = steadily(workers=workers)
    assert places(outcomes) == ALL_PLACES
    assert len({o.candidate.subnet.digest for o in outcomes}) == N
    assert all(SPACE.n_params(o.candidate.subnet) == o.candidate.n_params for o in outcomes)


def test_one_at_a_time_it_is_a_function_of_its_seed() -> None:
    assert steadily() == steadily()
    assert steadily() != steadily(seed=2)


@pytest.mark.parametrize("stopped_after", [0, 3, 10, 29, N])
def test_one_at_a_time_a_resume_goes_on_as_if_it_had_not_stopped(stopped_after: int) -> None:
    """What the process held is all made of the outcomes."""
    whole = steadily()
    shuffled = random.Random(0).sample(whole[:stopped_after], stopped_after)
    assert sorted(steadily(history=shuffled), key=lambda o: o.candidate.place) == whole


def test_two_orders_of_arrival_find_two_things_from_one_first_population() -> None:
    """What the mode gives up; and what it keeps: the first population is the seed's."""
    one, two = (
        {o.candidate.place: o.candidate.subnet for o in steadily(workers=5, order=order)}
        for order in (1, 2)
    )
    assert one != two
    assert all(one[0, index] == two[0, index] for index in range(10))


def test_the_draws_of_a_child_come_from_its_number() -> None:
    """The same number and the same parents make the same child, whoever made the ones before."""
    whole = steadily()
    children = proposer().children([o for o in whole if o.candidate.place not in {(2, 3), (4, 9)}])
    again = {child.place: child for child in children}
    # (2, 3) now has later outcomes among its parents; its operator is that of its place.
    assert again.keys() == {(2, 3), (4, 9)}
    assert again[2, 3].operator == "mutation"
    but_last = proposer().children(whole[:-1])
    assert next(but_last) == whole[-1].candidate


def test_the_numbers_that_a_study_lacks_come_first() -> None:
    """What was under way when a process died leaves gaps; they are filled, in order."""
    some = [o for o in steadily(workers=5) if o.candidate.place not in {(0, 4), (1, 0), (3, 9)}][
        :32
    ]
    missing = [child.place for child in proposer().children(some)]
    assert missing == sorted(set(ALL_PLACES) - {o.candidate.place for o in some})
    assert {(0, 4), (1, 0)} <= set(missing)


def test_parents_are_the_best_of_what_has_arrived() -> None:
    outcomes = steadily(workers=3, n=25)
    # One at a time, so that all of them have arrived when a child is made.
    children = proposer().children(outcomes)
    best = sorted(outcomes, key=SETTINGS.objectives.rank)[:4]
    named = {digest for _ in range(8) for digest in next(children).parents}
    assert named <= {o.candidate.subnet.digest for o in best}
    best_of_all = replace(outcome_of(SPACE, next(children)), loss=0.0)
    children.add(best_of_all)
    named = {digest for child in children for digest in child.parents}
    assert best_of_all.candidate.subnet.digest in named
    assert best[-1].candidate.subnet.digest not in named


def test_children_are_random_until_there_are_parents_enough() -> None:
    """Else all workers of a large cluster would mutate whichever subnet happened to be first."""
    outcomes = [outcome_of(SPACE, c) for c in islice(proposer().children([]), 14)]
    assert {o.candidate.operator for o in outcomes} == {"random"}
    for n_arrived, operator in ((3, "random"), (4, "mutation")):
        children = proposer().children([])
        assert len(list(islice(children, 10))) == 10
        for outcome in outcomes[:n_arrived]:
            children.add(outcome)
        assert next(children).operator == operator


def test_failures_have_no_children() -> None:
    failed = [replace(o, loss=None, top1=None, error_type="E", error="e") for o in steadily(n=20)]
    assert {child.operator for child in proposer().children(failed)} == {"random"}


def test_the_end_of_a_small_space_is_the_end_of_the_search() -> None:
    space = tiny_space()
    children = SteadyStateProposer(space, SETTINGS, 0).children([])
    found = []
    for child in children:
        children.add(outcome_of(space, child))
        found.append(child.subnet.digest)
    assert len(found) == len(set(found)) == space.size
    assert next(children, None) is None


def test_limits_hold_for_every_child() -> None:
    limits = ParamLimits(max_params=400)
    settings = replace(SETTINGS, limits=limits)
    outcomes = steadily(settings, workers=4)
    assert len(outcomes) == N
    assert all(limits.allow(o.candidate.n_params) for o in outcomes)
    with pytest.raises(InfeasibleLimitError):
        proposer(replace(SETTINGS, limits=ParamLimits(min_params=10**9)))


def test_it_finds_better_subnets_than_random_search() -> None:
    """Also with as many candidates under way as a population has."""
    settings = replace(SETTINGS, generations=9)
    random_search = replace(settings, mode="generational", mutations=0, crossovers=0)
    bests: dict[str, list[float]] = {"steady": [], "random": []}
    for seed in range(6):
        steady = steadily(settings, seed=seed, workers=10, order=seed)
        chance = searched(SPACE, make_proposer(SPACE, random_search, seed), range(10))
        for name, outcomes in (("steady", steady), ("random", chance)):
            bests[name].append(min(o.loss for o in outcomes if o.loss is not None))
    assert mean(bests["steady"]) < mean(bests["random"]) - 0.02


def test_only_the_evolution_can_be_steady() -> None:
    with pytest.raises(InvalidConfigError, match="needs the sampler evolution; got tpe"):
        SearchSettings(mode="steady-state", sampler="tpe")
