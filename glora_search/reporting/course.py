"""The course of a search as data: values in their axis' unit, the best so far, the generations.

Shared by the report and by the page of the service, and free of any drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from glora_search.reporting.trials import Trials
from glora_search.study.fronts import Reference, growth, point, reference_of
from glora_search.study.objectives import LOSS, Objective, Objectives
from glora_search.study.outcomes import Outcome


@dataclass(frozen=True)
class Generation:
    """A generation's stretch of the horizontal axis, on which subnets are numbered from 0.

    Args:
        number: The generation.
        start: Its first subnet.
        stop: One past its last.
    """

    number: int
    start: int
    stop: int


def generations(outcomes: Sequence[Outcome]) -> tuple[Generation, ...]:
    """The stretches of outcomes that are sorted by generation."""
    found: list[Generation] = []
    start = 0
    for number, members in groupby(outcomes, key=lambda o: o.candidate.generation):
        stop = start + sum(1 for _ in members)
        found.append(Generation(number, start, stop))
        start = stop
    return tuple(found)


def shown_value(outcome: Outcome, measure: Objective) -> float | None:
    """The measure in the unit of its axis: loss in nats, top-1 in per cent; None if it failed."""
    value = measure.value(outcome)
    return None if value is None else measure.scale * value


def use_log_axis(trials: Trials, measure: Objective) -> bool:
    """Whether the values spread so far that a linear axis would hide all but the worst."""
    values = [value for o in trials.values() if (value := measure.value(o)) is not None]
    return measure is LOSS and bool(values) and 0 < 10 * min(values) < max(values)


def best_so_far(trials: Trials, measure: Objective) -> list[tuple[int, float]]:
    """The best value over a search.

    Args:
        trials: In the order of the search; failures are passed over.
        measure: What gets better.

    Returns:
        For each complete subnet (its place among `trials`, counted from 0; the best value until
        then, in the unit of the axis).
    """
    better = max if measure.higher_is_better else min
    found: list[tuple[int, float]] = []
    for place, outcome in enumerate(trials.values()):
        value = shown_value(outcome, measure)
        if value is not None:
            found.append((place, better(value, found[-1][1]) if found else value))
    return found


def hypervolume_so_far(
    trials: Trials, objectives: Objectives, reference: Reference | None = None
) -> list[float]:
    """What the front covers after each subnet.

    Args:
        trials: In the order of the search.
        objectives: Of the study.
        reference: Up to which it is measured; the worst of the first generation if not given.

    Returns:
        Nothing where there is one objective, or no reference yet.
    """
    if reference is None and objectives.are_two:
        reference = reference_of(trials.values(), objectives)
    if reference is None:
        return []
    return list(growth([point(o, objectives) for o in trials.values()], reference))
