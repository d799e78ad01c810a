"""The hypervolume of two objectives over the search."""

from __future__ import annotations

import plotly.graph_objects as go

from glora_search.reporting.course import hypervolume_so_far
from glora_search.reporting.theme import INK, TEMPLATE
from glora_search.reporting.trials import Trials, in_search_order
from glora_search.study.objectives import Objectives


def hypervolume_figure(trials: Trials, objectives: Objectives) -> go.Figure | None:
    """What the front covers after each subnet, up to the worst of the first generation.

    Args:
        trials: In any order.
        objectives: Of the study.

    Returns:
        None where there is one objective, or no reference yet.
    """
    grown = hypervolume_so_far(in_search_order(trials), objectives)
    if not grown:
        return None
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(grown))),
            y=grown,
            mode="lines",
            line={"color": INK, "width": 2, "shape": "hv"},
            hovertemplate="subnet %{x}: %{y:.4f}<extra></extra>",
        )
    )
    figure.update_layout(template=TEMPLATE, height=300, margin={"t": 20}, showlegend=False)
    figure.update_xaxes(title_text="subnets in the order of the search")
    figure.update_yaxes(title_text="hypervolume")
    return figure
