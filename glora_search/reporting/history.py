"""The history of a search: every subnet in order, the best so far, the generations' means."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean
from typing import Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glora_search.reporting.course import (
    Generation,
    best_so_far,
    generations,
    shown_value,
    use_log_axis,
)
from glora_search.reporting.points import add_trial_points, hover
from glora_search.reporting.theme import FAILED, INK, MUTED, RULE, TEMPLATE
from glora_search.reporting.trials import Trials, in_search_order
from glora_search.study.objectives import LOSS, TOP1, Objective, Objectives

_MOST_BOUNDARIES: Final = 60
_MOST_LABELS: Final = 20


def history_figure(trials: Trials, objectives: Objectives) -> go.Figure:
    """Both measures over the search, the fitness above.

    Args:
        trials: At least one.
        objectives: What the search optimised.
    """
    ordered = in_search_order(trials)
    stretches = generations(list(ordered.values()))
    across = {number: float(k) for k, number in enumerate(ordered)}
    fitness = objectives.only
    other = TOP1 if fitness is LOSS else LOSS
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.05)
    figure.update_layout(template=TEMPLATE, height=640, margin={"t": 40})
    for row, measure in enumerate((fitness, other), start=1):
        first = row == 1
        add_trial_points(figure, ordered, measure, across, show_legend=first, row=row, col=1)
        _add_means(figure, ordered, measure, stretches, row=row)
        _add_best_so_far(figure, ordered, measure, row=row)
        _add_failures(figure, ordered, measure, across, row=row)
        figure.update_yaxes(
            title_text=measure.axis_title,
            type="log" if use_log_axis(ordered, measure) else "linear",
            row=row,
            col=1,
        )
    _label_generations(figure, stretches)
    return figure


def _add_best_so_far(figure: go.Figure, trials: Trials, measure: Objective, *, row: int) -> None:
    steps = best_so_far(trials, measure)
    if not steps:
        return
    figure.add_trace(
        go.Scatter(
            x=[*(place for place, _ in steps), len(trials) - 1],
            y=[*(value for _, value in steps), steps[-1][1]],
            mode="lines",
            line={"color": INK, "width": 2, "shape": "hv"},
            name="best so far",
            legendgroup="best",
            showlegend=row == 1,
            hoverinfo="skip",
        ),
        row=row,
        col=1,
    )


def _add_means(
    figure: go.Figure,
    trials: Trials,
    measure: Objective,
    stretches: Sequence[Generation],
    *,
    row: int,
) -> None:
    values = [shown_value(outcome, measure) for outcome in trials.values()]
    x: list[float | None] = []
    y: list[float | None] = []
    told: list[str | None] = []
    for stretch in stretches:
        known = [v for v in values[stretch.start : stretch.stop] if v is not None]
        if not known:
            continue
        mean = fmean(known)
        x += [stretch.start - 0.5, (stretch.start + stretch.stop - 1) / 2, stretch.stop - 0.5, None]
        y += [mean, mean, mean, None]
        told += [*[f"generation {stretch.number}: mean {mean:.4g} of {len(known)}"] * 3, None]
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": MUTED, "width": 2, "dash": "2px,2px"},
            name="mean of a generation",
            legendgroup="mean",
            showlegend=row == 1 and bool(x),
            text=told,
            hovertemplate="%{text}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def _add_failures(
    figure: go.Figure,
    trials: Trials,
    measure: Objective,
    across: dict[int, float],
    *,
    row: int,
) -> None:
    """Failures have no value: crosses along the lower edge of the panel."""
    failed = [number for number, outcome in trials.items() if outcome.failed]
    if not failed:
        return
    known = [v for o in trials.values() if (v := shown_value(o, measure)) is not None] or [0.0, 1.0]
    low, high = min(known), max(known)
    log = use_log_axis(trials, measure)
    edge = low * (low / high) ** 0.06 if log else low - 0.06 * ((high - low) or 1.0)
    figure.add_trace(
        go.Scatter(
            x=[across[number] for number in failed],
            y=[edge] * len(failed),
            mode="markers",
            marker={
                "color": FAILED,
                "symbol": "x-thin",
                "size": 7,
                "line": {"width": 1.5, "color": FAILED},
            },
            name="failed (no value)",
            legendgroup="failed",
            showlegend=row == 1,
            customdata=[
                [
                    *hover([number], trials)["customdata"][0][:4],
                    escape(trials[number].error_type or ""),
                ]
                for number in failed
            ],
            hovertemplate=(
                "<b>trial %{customdata[0]}</b> · %{customdata[1]}<br>"
                "generation %{customdata[2]}, index %{customdata[3]}<br>"
                "failed: %{customdata[4]}<extra></extra>"
            ),
        ),
        row=row,
        col=1,
    )


def _label_generations(figure: go.Figure, stretches: Sequence[Generation]) -> None:
    """The axis counts subnets; its labels are the generations', its lines their boundaries."""
    step = -(-len(stretches) // _MOST_LABELS)
    labelled = stretches[::step]
    figure.update_xaxes(
        range=[
            -0.5 - 0.01 * stretches[-1].stop,
            stretches[-1].stop - 0.5 + 0.01 * stretches[-1].stop,
        ],
        showgrid=False,
        ticks="",
        tickvals=[(stretch.start + stretch.stop - 1) / 2 for stretch in labelled],
        ticktext=[str(stretch.number) for stretch in labelled],
    )
    figure.update_xaxes(
        title_text="generation (each point a subnet, in the order of generation and index)",
        row=2,
        col=1,
    )
    if len(stretches) > _MOST_BOUNDARIES:
        return
    for stretch in stretches[1:]:
        figure.add_vline(x=stretch.start - 0.5, line={"color": RULE, "width": 1}, layer="below")
