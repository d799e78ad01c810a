"""The figures of studies: their course, and accuracy against size.

Pure functions from what was read of a study to charts. The best so far and the front are those of
the HTML report, from the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from glora_search.reporting.course import best_so_far, generations, shown_value, use_log_axis
from glora_search.reporting.marks import operator_marks
from glora_search.reporting.trials import Trials, pareto_front
from glora_search.server.page.charts import (
    SIDE,
    Chart,
    Key,
    Scale,
    Shape,
    dots,
    placed,
    scale_of,
    stairs,
    step_for,
    x_ticks,
    y_ticks,
)
from glora_search.study.objectives import PARAMS, TOP1, Objective

_MOST_BOUNDARIES: Final = 40
_MANY: Final = 1500  # from here on dots are smaller


@dataclass(frozen=True)
class Compared:
    """A study in a comparison.

    Args:
        place: Which of the compared ones, counted from 0: it keeps its colour in all charts.
        name: Its name.
        trials: Its outcomes.
    """

    place: int
    name: str
    trials: Trials

    @property
    def css(self) -> str:
        """The class of its line."""
        return f"series series-{self.place}"


def history_chart(trials: Trials, measure: Objective) -> Chart:
    """The fitness of each subnet, in the order of the search, and the best so far.

    Args:
        trials: In the order of the search, at least one.
        measure: The fitness.
    """
    values = [shown_value(outcome, measure) for outcome in trials.values()]
    known = [value for value in values if value is not None]
    x = Scale(0.0, max(len(trials), 2) + 0.0)
    y = scale_of(known, log=use_log_axis(trials, measure))
    best = best_so_far(trials, measure)
    shapes, keys = _points(trials, list(range(1, len(trials) + 1)), measure, x, y)
    bounds = [g.start for g in generations(list(trials.values()))[1:]]
    if len(bounds) <= _MOST_BOUNDARIES:
        lines = "".join(f"M{round(SIDE * x.share(b + 0.5))} 0V{SIDE}" for b in bounds)
        shapes.insert(0, Shape("grid", lines))
    if best:
        steps = placed([(place + 1, value) for place, value in best], x, y)
        shapes.append(Shape("best", stairs(steps, round(SIDE * x.share(len(trials))))))
        keys.append(Key("best", "best so far"))
    failed = [k for k, outcome in enumerate(trials.values(), start=1) if outcome.failed]
    if failed:
        shapes.append(
            Shape("failed", "".join(f"M{round(SIDE * x.share(k))} {SIDE}v-40" for k in failed))
        )
        keys.append(Key("failed", "failed"))
    last = f"; the best so far is {best[-1][1]:.4g}" if best else ""
    return Chart(
        told=f"{measure.axis_title} of {len(trials):,} evaluations in their order{last}.",
        x_title="evaluation",
        y_title=measure.axis_title,
        x_ticks=x_ticks(x),
        y_ticks=y_ticks(y) if known else (),
        shapes=tuple(shapes),
        keys=tuple(keys),
    )


def trade_off_chart(
    trials: Trials, winner: int | None, *, measure: Objective = TOP1, knee: int | None = None
) -> Chart:
    """A measure against adapter parameters, with the front and the winner.

    Args:
        trials: At least one complete.
        winner: Its number.
        measure: Val top-1, or the first of two objectives.
        knee: The trial at the knee of the front of two objectives; None where there is none.
    """
    complete = {number: o for number, o in trials.items() if not o.failed}
    front = pareto_front(complete, measure)
    x = scale_of(float(o.candidate.n_params) for o in complete.values())
    values = [v for o in complete.values() if (v := shown_value(o, measure)) is not None]
    y = scale_of(values, log=use_log_axis(complete, measure))
    across = [o.candidate.n_params for o in complete.values()]
    shapes, keys = _points(complete, across, measure, x, y)

    def where(numbers: Sequence[int]) -> list[tuple[int, int]]:
        return placed(
            [
                (complete[n].candidate.n_params, value)
                for n in numbers
                if (value := shown_value(complete[n], measure)) is not None
            ],
            x,
            y,
        )

    on_front = where(front)
    shapes += [Shape("front", stairs(on_front, SIDE)), Shape("front-dots", dots(on_front))]
    keys.append(Key("front", f"front of {len(front)}"))
    for css, number in (("knee", knee), ("winner", winner)):
        if number in complete:
            place = dots(where([number]))
            shapes += [Shape(f"{css}-ring", place), Shape(css, place)]
            keys.append(Key(css, css))
    return Chart(
        told=(
            f"{measure.axis_title} against adapter parameters of {len(complete):,} subnets; "
            f"{len(front)} of them are on the front."
        ),
        x_title=PARAMS.axis_title,
        y_title=measure.axis_title,
        x_ticks=x_ticks(x, most=4),
        y_ticks=y_ticks(y),
        shapes=tuple(shapes),
        keys=tuple(keys),
    )


def comparison_chart(studies: Sequence[Compared], measure: Objective) -> Chart:
    """The best so far of several studies over their evaluations.

    Args:
        studies: Those that have this fitness; trials in the order of the search.
        measure: The fitness.
    """
    courses = [(study, best_so_far(study.trials, measure)) for study in studies]
    values = [value for _, course in courses for _, value in course]
    x = Scale(0.0, max(2.0, *(float(len(study.trials)) for study in studies)))
    y = scale_of(values, log=bool(values) and 0 < 10 * min(values) < max(values))
    shapes = []
    for study, course in courses:
        steps = placed([(place + 1, value) for place, value in course], x, y)
        shapes.append(Shape(study.css, stairs(steps, round(SIDE * x.share(len(study.trials))))))
    return Chart(
        told=f"The best {measure.title} so far over the evaluations of {_names(studies)}.",
        x_title="evaluation",
        y_title=f"best {measure.axis_title}",
        x_ticks=x_ticks(x),
        y_ticks=y_ticks(y),
        shapes=tuple(shapes),
        keys=tuple(Key(study.css, study.name) for study in studies),
    )


def fronts_chart(studies: Sequence[Compared]) -> Chart:
    """The fronts of val top-1 against adapter parameters of several studies.

    Args:
        studies: With complete trials alone, at least one of each.
    """
    fronts = [
        [
            (float(study.trials[n].candidate.n_params), shown_value(study.trials[n], TOP1) or 0.0)
            for n in pareto_front(study.trials, TOP1)
        ]
        for study in studies
    ]
    x = scale_of(at for front in fronts for at, _ in front)
    y = scale_of(value for front in fronts for _, value in front)
    shapes = []
    for study, front in zip(studies, fronts, strict=True):
        points = placed(front, x, y)
        shapes += [
            Shape(study.css, stairs(points, SIDE)),
            Shape(f"{study.css} series-dots", dots(points)),
        ]
    return Chart(
        told=f"The fronts of val top-1 against adapter parameters of {_names(studies)}.",
        x_title=PARAMS.axis_title,
        y_title=TOP1.axis_title,
        x_ticks=x_ticks(x, most=4),
        y_ticks=y_ticks(y),
        shapes=tuple(shapes),
        keys=tuple(Key(study.css, study.name) for study in studies),
    )


def _names(studies: Sequence[Compared]) -> str:
    return ", ".join(study.name for study in studies)


def spark_path(values: Sequence[float], *, higher_is_better: bool) -> str:
    """The best so far as a line in a plot of 1000 by 1000; empty with fewer than two values."""
    if len(values) < 2:
        return ""
    better = max if higher_is_better else min
    best = [values[0]]
    for value in values[1:]:
        best.append(better(best[-1], value))
    x, y = Scale(0.0, len(values) - 1.0), scale_of(best, margin=0.1)
    return stairs(placed(list(enumerate(best)), x, y), SIDE)


def _points(
    trials: Trials, across: Sequence[float], measure: Objective, x: Scale, y: Scale
) -> tuple[list[Shape], list[Key]]:
    """A path of dots for each operator, and the legend's entries for them."""
    groups: dict[str, list[tuple[int, int]]] = {}
    for operator in operator_marks(o.candidate.operator for o in trials.values()):
        points = [
            (at, value)
            for at, outcome in zip(across, trials.values(), strict=True)
            if outcome.candidate.operator == operator
            and (value := shown_value(outcome, measure)) is not None
        ]
        if points:
            groups[operator] = placed(points, x, y)
    step = step_for(list(groups.values()))
    size = "dots many" if len(trials) > _MANY else "dots"
    shapes, keys, others = [], [], 0
    for operator, places in groups.items():
        css = f"op-{operator}"
        if operator not in ("random", "mutation", "crossover"):
            css, others = f"op-more-{others % 4}", others + 1
        shapes.append(Shape(f"{size} {css}", dots(places, step=step)))
        keys.append(Key(f"dots {css}", operator))
    return shapes, keys
