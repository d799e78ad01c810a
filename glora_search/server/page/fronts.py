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
    Scale,
    Shape,
    placed,
    scale_of,
    stairs,
    x_ticks,
    y_ticks,
)
from glora_search.server.page.figures import trade_off_chart

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
    x, y = Scale(0.0, max(len(grown), 2) + 0.0), scale_of([0.0, *grown])
    places = placed([(k + 1, value) for k, value in enumerate(grown)], x, y)
    return Chart(
        told=f"The hypervolume of the front over {len(grown):,} evaluations: {grown[-1]:.4f}.",
        x_title="evaluation",
        y_title="hypervolume",
        x_ticks=x_ticks(x),
        y_ticks=y_ticks(y),
        shapes=(Shape("best", stairs(places, round(SIDE * x.share(len(grown))))),),
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
