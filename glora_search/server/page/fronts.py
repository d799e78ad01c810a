"""The front of a study of two objectives: its chart, how it grew, and a table to take one from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from glora_search.reporting.course import hypervolume_so_far
from glora_search.reporting.snapshot import Snapshot
from glora_search.server.page.charts import (
    SIDE,
    Chart,
    Key,
    Scale,
    Shape,
    placed,
    scale_of,
    stairs,
    x_ticks,
    y_ticks,
)
from glora_search.server.page.figures import Compared, trade_off_chart
from glora_search.study.fronts import reference_of
from glora_search.study.objectives import Objectives

_MOST_ROWS: Final = 40


@dataclass(frozen=True)
class Front:
    """The front, ready for the template.

    Args:
        size: How many subnets are on it.
        knee: The trial at its knee.
        shown: Trials of the table, parameters rising: all, or some with even steps between them.
        chart: Every subnet, the front and its knee.
        growth: The hypervolume over the search; None where there is no reference yet.
        hypervolume: At its end; None without.
        marks: What stands beside trials of the table: `knee`, `winner`.
    """

    size: int
    knee: int
    shown: tuple[int, ...]
    chart: Chart
    growth: Chart | None
    hypervolume: float | None
    marks: Mapping[int, str]


def front_of(snapshot: Snapshot) -> Front | None:
    """The front of a study; None for one objective, or while nothing is evaluated."""
    knee = snapshot.knee
    if knee is None:
        return None
    grown = hypervolume_so_far(snapshot.trials, snapshot.objectives)
    return Front(
        size=len(snapshot.front),
        knee=knee,
        shown=_some(snapshot.front, knee),
        chart=trade_off_chart(
            snapshot.trials, snapshot.winner, measure=snapshot.objectives.first, knee=knee
        ),
        growth=hypervolume_chart(grown) if grown else None,
        hypervolume=grown[-1] if grown else None,
        marks=_marks(knee, snapshot.winner),
    )


def hypervolume_chart(grown: Sequence[float]) -> Chart:
    """The hypervolume after each subnet.

    Args:
        grown: In the order of the search, at least one.
    """
    told = f"The hypervolume of the front over {len(grown):,} evaluations: {grown[-1]:.4f}."
    return _growth_chart({"best": grown}, told)


@dataclass(frozen=True)
class SharedGrowth:
    """How the fronts of several studies grew, all measured up to one point.

    Args:
        objectives: Of all of them.
        chart: A line for each study.
        last: Study to the hypervolume at its end.
    """

    objectives: Objectives
    chart: Chart
    last: Mapping[str, float]

    @property
    def title(self) -> str:
        """Of the chart and of a column; studies of other objectives have another unit."""
        return f"Hypervolume of {' and '.join(each.title for each in self.objectives.each)}"


def shared_growth(studies: Sequence[Compared], objectives: Objectives) -> SharedGrowth | None:
    """The hypervolumes of studies, up to the worst of all their first generations; None where
    fewer than two studies have one.

    Args:
        studies: Of these objectives; trials in the order of the search.
        objectives: Two.
    """
    outcomes = [outcome for study in studies for outcome in study.trials.values()]
    reference = reference_of(outcomes, objectives)
    measured = [s for s in studies if reference_of(s.trials.values(), objectives) is not None]
    if reference is None or len(measured) < 2:
        return None
    courses = {
        study.css: hypervolume_so_far(study.trials, objectives, reference) for study in measured
    }
    names = ", ".join(study.name for study in measured)
    told = f"The hypervolumes of the fronts over the evaluations of {names}."
    keys = tuple(Key(study.css, study.name) for study in measured)
    return SharedGrowth(
        objectives=objectives,
        chart=_growth_chart(courses, told, keys),
        last={study.name: courses[study.css][-1] for study in measured},
    )


def _growth_chart(
    courses: Mapping[str, Sequence[float]], told: str, keys: tuple[Key, ...] = ()
) -> Chart:
    """Hypervolumes over evaluations, by the class of their line."""
    x = Scale(0.0, max(2.0, *(float(len(course)) for course in courses.values())))
    y = scale_of([0.0, *(value for course in courses.values() for value in course)])
    shapes = []
    for css, course in courses.items():
        places = placed([(k + 1, value) for k, value in enumerate(course)], x, y)
        shapes.append(Shape(css, stairs(places, round(SIDE * x.share(len(course))))))
    return Chart(
        told=told,
        x_title="evaluation",
        y_title="hypervolume",
        x_ticks=x_ticks(x),
        y_ticks=y_ticks(y),
        shapes=tuple(shapes),
        keys=keys,
    )


def _some(front: Sequence[int], knee: int) -> tuple[int, ...]:
    """The ends, the knee, and others of a front with even steps between them."""
    step = -(-len(front) // _MOST_ROWS)
    kept = {*front[::step], front[-1], knee}
    return tuple(number for number in front if number in kept)


def _marks(knee: int, winner: int | None) -> dict[int, str]:
    marks = {knee: "knee"}
    if winner is not None:
        marks[winner] = "knee, winner" if winner == knee else "winner"
    return marks
