"""Trials as points: one trace an operator, with a hover that tells which subnet it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import plotly.graph_objects as go

from glora_search.reporting.course import shown_value
from glora_search.reporting.marks import Mark, operator_marks
from glora_search.reporting.trials import Trials
from glora_search.study.objectives import Objective
from glora_search.study.outcomes import Outcome

_HOVER: Final = (
    "<b>trial %{customdata[0]}</b> · %{customdata[1]}<br>"
    "generation %{customdata[2]}, index %{customdata[3]}<br>"
    "%{customdata[4]} parameters<br>"
    "val top-1 %{customdata[5]} %, val loss %{customdata[6]}<br>"
    "subnet %{customdata[7]}<extra></extra>"
)


def hover(numbers: Sequence[int], trials: Trials) -> dict[str, Any]:
    """The part of a trace that tells, on hover, which trials its points are."""
    return {
        "customdata": [_told(number, trials[number]) for number in numbers],
        "hovertemplate": _HOVER,
    }


def add_trial_points(
    figure: go.Figure,
    trials: Trials,
    measure: Objective,
    across: Mapping[int, float],
    *,
    show_legend: bool,
    **place: int,
) -> None:
    """Add the complete trials to a panel: one trace an operator.

    Args:
        figure: What to draw on.
        trials: What to draw; failures are left out.
        measure: What stands on the vertical axis.
        across: Trial number to the place on the horizontal axis.
        show_legend: Whether this panel's traces stand for the operators in the legend.
        place: `row` and `col` of the panel.
    """
    marks = operator_marks(outcome.candidate.operator for outcome in trials.values())
    size = 6.0 if len(trials) <= 1000 else 4.5
    for operator, mark in marks.items():
        numbers = [
            number
            for number, outcome in trials.items()
            if not outcome.failed and outcome.candidate.operator == operator
        ]
        if not numbers:
            continue
        figure.add_trace(
            go.Scatter(
                x=[across[number] for number in numbers],
                y=[shown_value(trials[number], measure) for number in numbers],
                mode="markers",
                marker=_marker(mark, size),
                name=escape(operator),
                legendgroup=f"operator {operator}",
                showlegend=show_legend,
                **hover(numbers, trials),
            ),
            **place,
        )


def _marker(mark: Mark, size: float) -> dict[str, Any]:
    return {"color": mark.colour, "symbol": mark.symbol, "size": size, "opacity": 0.65}


def _told(number: int, outcome: Outcome) -> list[str | int]:
    candidate = outcome.candidate
    top1, loss = outcome.top1, outcome.loss
    return [
        number,
        escape(candidate.operator),
        candidate.generation,
        candidate.index,
        f"{candidate.n_params:,}",
        "" if top1 is None else f"{100 * top1:.2f}",
        "" if loss is None else f"{loss:.4f}",
        candidate.subnet.digest[:12],
    ]
