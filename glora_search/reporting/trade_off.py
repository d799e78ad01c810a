"""Accuracy against parameters: every subnet, the Pareto front, and the winner."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glora_search.reporting.course import shown_value, use_log_axis
from glora_search.reporting.formatting import standard_error
from glora_search.reporting.points import add_trial_points, hover
from glora_search.reporting.theme import INK, TEMPLATE, WINNER
from glora_search.reporting.trials import Trials, pareto_front, ranking
from glora_search.study.objectives import LOSS, PARAMS, TOP1, Objective, Objectives


def trade_off_figure(
    trials: Trials, objectives: Objectives, n_images: int | None, *, winner: int | None = None
) -> go.Figure:
    """Val top-1 and val loss, each against adapter parameters.

    Args:
        trials: At least one of them complete.
        objectives: What decides which subnet is the winner.
        n_images: Images of the val split, for the band of one standard error about the winner's
            top-1; None where that is not known.
        winner: Its trial; the best by `objectives` if not given.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.09)
    figure.update_layout(template=TEMPLATE, height=460, margin={"t": 40})
    across = {number: float(o.candidate.n_params) for number, o in trials.items()}
    if winner is None:
        winner = ranking(trials, objectives)[0]
    error = standard_error(trials[winner].top1, n_images)
    if error is not None:
        _add_band(figure, 100 * (trials[winner].top1 or 0.0), 100 * error)
    for col, measure in enumerate((TOP1, LOSS), start=1):
        add_trial_points(figure, trials, measure, across, show_legend=col == 1, row=1, col=col)
        _add_front(figure, trials, measure, col=col)
        _add_winner(figure, trials, winner, measure, col=col)
        figure.update_yaxes(
            title_text=measure.axis_title,
            type="log" if use_log_axis(trials, measure) else "linear",
            row=1,
            col=col,
        )
    figure.update_xaxes(title_text=PARAMS.axis_title, separatethousands=True, nticks=6)
    return figure


def _add_front(figure: go.Figure, trials: Trials, measure: Objective, *, col: int) -> None:
    front = pareto_front(trials, measure)
    figure.add_trace(
        go.Scatter(
            x=[trials[number].candidate.n_params for number in front],
            y=[shown_value(trials[number], measure) for number in front],
            mode="lines+markers",
            line={"color": INK, "width": 1.5, "shape": "hv"},
            marker={"color": "white", "size": 8, "line": {"color": INK, "width": 1.5}},
            name="Pareto front",
            legendgroup="front",
            showlegend=col == 1,
            **hover(front, trials),
        ),
        row=1,
        col=col,
    )


def _add_winner(
    figure: go.Figure, trials: Trials, winner: int, measure: Objective, *, col: int
) -> None:
    figure.add_trace(
        go.Scatter(
            x=[trials[winner].candidate.n_params],
            y=[shown_value(trials[winner], measure)],
            mode="markers",
            marker={
                "symbol": "star",
                "size": 17,
                "color": WINNER,
                "line": {"color": "white", "width": 1},
            },
            name=f"winner (trial {winner})",
            legendgroup="winner",
            showlegend=col == 1,
            **hover([winner], trials),
        ),
        row=1,
        col=col,
    )


def _add_band(figure: go.Figure, top1: float, error: float) -> None:
    figure.add_hrect(
        y0=top1 - error,
        y1=min(top1 + error, 100.0),
        fillcolor=WINNER,
        opacity=0.09,
        line_width=0,
        layer="below",
        row=1,
        col=1,
        exclude_empty_subplots=False,  # the points come later
    )
