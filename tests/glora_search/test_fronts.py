"""The front of two objectives, what it covers, its knee, and the sorting of NSGA-II."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_cases import batch

from glora_search.proposing.nsga2 import front_numbers, room, survivors
from glora_search.study.fronts import (
    Point,
    Reference,
    front,
    growth,
    hypervolume,
    knee,
    point,
    reference_of,
)
from glora_search.study.objectives import BY_LOSS, BY_LOSS_AND_PARAMS, Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError

GRIDDED = st.tuples(st.integers(0, 6), st.integers(0, 6))  # few values, so that many tie


def dominates(one: Point, other: Point) -> bool:
    """By the definition, as a judge of the sweeps."""
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    """Outcomes of two generations, some of which failed."""
    return [*batch(0, 30), *batch(1, 30)]


@pytest.mark.parametrize("names", [("loss", "params"), ("top1", "params")])
def test_the_front_is_what_no_other_dominates(names: tuple[str, str], found: list[Outcome]) -> None:
    """Top-1 has ties and is maximised."""
    objectives, trials = Objectives.of(*names), dict(enumerate(found))
    points = {n: p for n, o in trials.items() if (p := point(o, objectives)) is not None}
    expected = {p for p in points.values() if not any(dominates(q, p) for q in points.values())}
    numbers = front(trials, objectives)
    assert {points[number] for number in numbers} == expected
    assert len(numbers) == len(expected), "of equal ones one"
    assert [points[n][1] for n in numbers] == sorted(points[n][1] for n in numbers)
    assert not any(trials[number].failed for number in numbers)


def test_a_front_of_one_objective_is_refused(found: list[Outcome]) -> None:
    with pytest.raises(InvalidConfigError, match="a front needs two objectives; got loss"):
        front(dict(enumerate(found)), BY_LOSS)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(points=st.lists(GRIDDED, max_size=12))
def test_the_hypervolume_counts_the_cells_that_are_dominated(points: list[Point]) -> None:
    """On a grid of whole numbers the area is a number of unit cells."""
    reference = Reference(5.0, 4.0)
    cells = sum(any(p[0] <= x and p[1] <= y for p in points) for x in range(5) for y in range(4))
    assert hypervolume(points, reference) == pytest.approx(cells / 4)
    grown = list(growth(points, reference))
    assert grown == sorted(grown)
    if points:
        assert grown[-1] == pytest.approx(cells / 4)


def test_a_failure_leaves_the_hypervolume_as_it_is() -> None:
    reference = Reference(2.0, 2.0)
    assert list(growth([None, (1.0, 1.0), None], reference)) == [0.0, 0.5, 0.5]


def test_the_reference_is_the_worst_of_the_first_generation(found: list[Outcome]) -> None:
    """What comes later must not move it, else a hypervolume could fall."""
    first = [o for o in found if o.candidate.generation == 0 and o.loss is not None]
    reference = reference_of(found, BY_LOSS_AND_PARAMS)
    assert reference == Reference(
        max(o.loss for o in first if o.loss is not None),
        max(o.candidate.n_params for o in first),
    )
    assert reference_of([o for o in found if o.candidate.generation], BY_LOSS_AND_PARAMS) is None


@pytest.mark.parametrize(
    ("points", "position"),
    [
        ([(1.0, 0.0), (0.2, 10.0), (0.1, 60.0), (0.0, 100.0)], 1),
        ([(5.0, 7.0)], 0),
        ([(1.0, 0.0), (0.0, 9.0)], 1),
        ([(1.0, 0.0), (0.9, 5.0), (0.0, 10.0)], 2),
        ([(1.0, 0.0), (0.5, 5.0), (0.0, 10.0)], 2),
    ],
    ids=["a bend", "one point", "two points", "bent the other way", "a line"],
)
def test_the_knee_is_farthest_below_the_line_through_the_ends(
    points: list[Point], position: int
) -> None:
    """Where no point is below it there is no knee: the best in the first objective is taken."""
    assert knee(points) == position


@settings(deadline=None, derandomize=True, max_examples=60)
@given(points=st.lists(GRIDDED, max_size=14))
def test_fronts_are_peeled_off_one_after_the_other(points: list[Point]) -> None:
    """The sweep gives what repeated removal by the definition gives, equal points included."""
    left, number, expected = set(range(len(points))), 0, dict[int, int]()
    while left:
        peel = {k for k in left if not any(dominates(points[j], points[k]) for j in left)}
        expected |= dict.fromkeys(peel, number)
        left, number = left - peel, number + 1
    assert front_numbers(points) == [expected[k] for k in range(len(points))]


def test_the_ends_of_a_front_have_infinite_room() -> None:
    rooms = room([(0.0, 10.0), (1.0, 8.0), (2.0, 2.0), (4.0, 0.0)])
    assert rooms == [math.inf, 2 / 4 + 8 / 10, 3 / 4 + 8 / 10, math.inf]


def test_parents_are_taken_front_by_front_with_their_ends_first(found: list[Outcome]) -> None:
    trials = dict(enumerate(found))
    numbers = front(trials, BY_LOSS_AND_PARAMS)
    ends = {trials[numbers[0]].candidate.place, trials[numbers[-1]].candidate.place}
    assert {o.candidate.place for o in survivors(found, BY_LOSS_AND_PARAMS, 2)} == ends
    whole = survivors(found, BY_LOSS_AND_PARAMS, len(numbers))
    assert {o.candidate.place for o in whole} == {trials[n].candidate.place for n in numbers}
    complete = [outcome for outcome in found if not outcome.failed]
    assert len(survivors(found, BY_LOSS_AND_PARAMS, 1000)) == len(complete)


def test_parents_do_not_depend_on_the_order_or_the_worker(found: list[Outcome]) -> None:
    """Else a resumed search would find something else."""
    others = [replace(outcome, worker="other:1", eval_s=9.0) for outcome in found]
    random.Random(0).shuffle(others)
    expected = [o.candidate for o in survivors(found, BY_LOSS_AND_PARAMS, 10)]
    assert [o.candidate for o in survivors(others, BY_LOSS_AND_PARAMS, 10)] == expected
