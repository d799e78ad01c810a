"""The front of two objectives: what no other subnet beats, how much it covers, and its knee.

A subnet dominates another if it is at least as good in both objectives and better in one. The front
is what no subnet dominates. All of this is exact, and for two objectives alone: one sweep over
sorted points does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError

Point = tuple[float, float]
"""The costs of a subnet in the two objectives; lower is better."""


_ON_THE_LINE: Final = 1e-9
"""A point that is less than this below the line through the ends of a front counts as on it."""


@dataclass(frozen=True)
class Reference:
    """The point up to which a front is measured: what is worse than it in either objective does not
    count.

    Args:
        first: Cost in the first objective.
        second: Cost in the second one.
    """

    first: float
    second: float

    @property
    def costs(self) -> Point:
        """The point itself."""
        return self.first, self.second


def front(trials: Mapping[int, Outcome], objectives: Objectives) -> list[int]:
    """The numbers of the trials that no other dominates; failures are left out.

    Args:
        trials: By Optuna's number.
        objectives: Two.

    Returns:
        The second objective gets worse, the first one better. Of equal trials, the earliest.
    """
    return undominated(
        (costs[1], costs[0], outcome.candidate.place, number)
        for number, outcome in trials.items()
        if (costs := point(outcome, objectives)) is not None
    )


def undominated(keyed: Iterable[tuple[float, float, tuple[int, int], int]]) -> list[int]:
    """The numbers of what nothing dominates, as `front` gives them.

    Args:
        keyed: Second cost, first cost, place and number of each, in any order.
    """
    kept, best = [], math.inf
    for _, cost, _, number in sorted(keyed):
        if cost < best:
            kept.append(number)
            best = cost
    return kept


def point(outcome: Outcome, objectives: Objectives) -> Point | None:
    """The costs of an outcome in two objectives; None where it failed or is not finite.

    Raises:
        InvalidConfigError: There are not two objectives.
    """
    if not objectives.are_two:
        raise InvalidConfigError(f"a front needs two objectives; got {objectives}")
    costs = objectives.costs(outcome)
    if costs is None or not all(map(math.isfinite, costs)):
        return None
    return costs[0], costs[1]


def hypervolume(points: Iterable[Point], reference: Reference) -> float:
    """How much a front covers, in the unit of the first objective.

    This is the area between the front and the reference point, divided by the second coordinate of
    that point. With loss and parameters: for each size up to the reference's take the best loss of
    a subnet that is not larger, or the reference's loss; this is how far below the reference's loss
    it is, as a mean over sizes.

    Args:
        points: Of any subnets; those off the front change nothing.
        reference: Its second coordinate is above 0.
    """
    covered, best = 0.0, reference.first
    for second, first in sorted((second, first) for first, second in points):
        if second >= reference.second:
            break
        if first < best:
            covered += (best - first) * (reference.second - second)
            best = first
    return covered / reference.second


def growth(points: Sequence[Point | None], reference: Reference) -> Iterator[float]:
    """The hypervolume after each of `points`, in their order; None is a failure."""
    kept: list[Point] = []
    covered = 0.0
    for each in points:
        if add_to_front(kept, each):
            covered = hypervolume(kept, reference)
        yield covered


def add_to_front(kept: list[Point], new: Point | None) -> bool:
    """Put a point into a front, and what it dominates out of it; whether it belongs there.

    Args:
        kept: The front, which is changed.
        new: None is a failure, which never belongs there.
    """
    if new is None or any(k[0] <= new[0] and k[1] <= new[1] for k in kept):
        return False
    kept[:] = [k for k in kept if not (new[0] <= k[0] and new[1] <= k[1])]
    kept.append(new)
    return True


def reference_of(outcomes: Iterable[Outcome], objectives: Objectives) -> Reference | None:
    """The reference point of a study: the worst of its first generation in each objective.

    It stays what it is once that generation is done, so a hypervolume can be followed over the
    search. None while nothing is evaluated, or if no subnet has a parameter.
    """
    first = [
        found
        for outcome in outcomes
        if outcome.candidate.generation == 0 and (found := point(outcome, objectives)) is not None
    ]
    if not first:
        return None
    reference = Reference(max(p[0] for p in first), max(p[1] for p in first))
    return reference if reference.second > 0 else None


def knee_of(trials: Mapping[int, Outcome], numbers: Sequence[int], objectives: Objectives) -> int:
    """The number of the trial at the knee of a front.

    Args:
        trials: By Optuna's number.
        numbers: What `front` gave of them; at least one.
        objectives: Two.
    """
    points = [found for n in numbers if (found := point(trials[n], objectives)) is not None]
    return numbers[knee(points)]


def knee(points: Sequence[Point]) -> int:
    """The position of the knee of a front: where less of one objective costs most of the other.

    Both objectives are scaled to 0 to 1 between the ends of the front. The knee is the point that
    is farthest below the line through the ends (Das, 1999), or the best in the first objective
    where no point is below it.

    Args:
        points: A front in the order of `front`; at least one.
    """
    one_end, other_end = points[0], points[-1]
    first_extent, second_extent = one_end[0] - other_end[0], other_end[1] - one_end[1]
    last = len(points) - 1
    if not (first_extent and second_extent):
        return last
    depths = [
        1 - (first - other_end[0]) / first_extent - (second - one_end[1]) / second_extent
        for first, second in points
    ]
    deepest = max(depths)
    return depths.index(deepest) if deepest > _ON_THE_LINE else last
