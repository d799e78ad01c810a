"""The choice of parents for two objectives, as in NSGA-II (Deb et al., 2002).

Outcomes are sorted into fronts: the first is what no outcome dominates, the next what remains then,
and so on. Parents are taken front by front. Within a front, those come first that have the most
room around them, so that parents cover the whole of it. Children are made of them by the same
operators as for one objective.

It is a pure function of the set of outcomes. They may arrive in any order.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from glora_search.study.fronts import Point, point
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome


def survivors(outcomes: Iterable[Outcome], objectives: Objectives, n: int) -> list[Outcome]:
    """The best `n` outcomes without failures: by front, then by room, then as one objective ranks.

    Args:
        outcomes: In any order.
        objectives: Two.
        n: How many, if there are so many.
    """
    ranked = sorted(
        (outcome for outcome in outcomes if point(outcome, objectives) is not None),
        key=objectives.rank,
    )
    points = [found for o in ranked if (found := point(o, objectives)) is not None]
    of_front: dict[int, list[int]] = {}
    for position, number in enumerate(front_numbers(points)):
        of_front.setdefault(number, []).append(position)
    chosen: list[int] = []
    for number in sorted(of_front):
        members = of_front[number]
        rooms = room([points[position] for position in members])
        by_room = sorted(zip(rooms, members, strict=True), key=lambda each: (-each[0], each[1]))
        chosen += [position for _, position in by_room]
        if len(chosen) >= n:
            break
    return [ranked[position] for position in chosen[:n]]


def front_numbers(points: Sequence[Point]) -> list[int]:
    """The front of each point, 0 for those that no point dominates.

    One sweep in ascending order does it. The last point of each front is the only one that can
    dominate the next point, and these last points are in order themselves; so the first front
    whose last point does not dominate it is found by bisection.
    """
    numbers = [0] * len(points)
    lasts: list[Point] = []  # of each front its last point, second coordinate first
    for position in sorted(range(len(points)), key=points.__getitem__):
        first, second = points[position]
        number = bisect_left(lasts, (second, first))
        lasts[number : number + 1] = [(second, first)]
        numbers[position] = number
    return numbers


def room(points: Sequence[Point]) -> list[float]:
    """The crowding distance of each point of a front: in each objective, the distance between its
    two neighbours as a share of the front's extent, added up. The ends have infinite room.
    """
    rooms = [0.0] * len(points)
    for axis in (0, 1):
        order = sorted(range(len(points)), key=lambda k: (points[k][axis], points[k][1 - axis], k))
        low, high = points[order[0]][axis], points[order[-1]][axis]
        for end in (order[0], order[-1]):
            rooms[end] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            if high > low:
                rooms[here] += (points[after][axis] - points[before][axis]) / (high - low)
    return rooms
