"""A comparison of methods as a picture: test top-1 against parameters, one file of HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from glora_search.reporting.theme import TEMPLATE
from glora_search.reporting.writing import write_page


def write_comparison(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture, complete with plotly.js: it loads nothing from anywhere.

    Args:
        document: What `Comparison.to_json` gives.
        path: The HTML file.

    Raises:
        ReportError: The file cannot be written.
    """
    figure = comparison_figure(document)
    write_page(figure.to_html(include_plotlyjs=True, config={"displaylogo": False}), path)


def comparison_figure(document: Mapping[str, Any]) -> go.Figure:
    """Test top-1 with its 95% interval against trainable parameters, one marker a method."""
    figure = go.Figure(layout={"template": TEMPLATE})
    rows = [row for row in document["rows"] if row.get("test_interval")]
    for merges, symbol, name in ((True, "circle", "merges"), (False, "x", "does not merge")):
        shown = [row for row in rows if row["merges"] is merges]
        if not shown:
            continue
        figure.add_scatter(
            x=[max(1, row["n_params"]) for row in shown],
            y=[100 * row["test_interval"]["mean"] for row in shown],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": _reach(shown, "high", 1),
                "arrayminus": _reach(shown, "low", -1),
            },
            text=[row["method"] for row in shown],
            mode="markers+text",
            textposition="middle right",
            marker={"symbol": symbol, "size": 9},
            name=name,
        )
    tasks, whole = document["tasks"], document["suite"]["all_tasks"]
    part = f"{len(tasks)}" if document["suite"]["complete"] else f"{len(tasks)} of {len(whole)}"
    mean = f"flat mean of {part} tasks" if len(whole) > 1 else tasks[0]
    parameters = "trainable parameters without the head; none is drawn at 1"
    figure.update_xaxes(title=parameters, type="log")
    figure.update_yaxes(title=f"test top-1, {mean}, %, with 95% intervals")
    figure.update_layout(width=960, height=600, title=document["name"])
    return figure


def _reach(rows: Iterable[Mapping[str, Any]], end: str, sign: int) -> list[float]:
    """Points from the mean to one end of the interval; 0 where one seed gives none."""
    reaches = []
    for row in rows:
        found, mean = row["test_interval"][end], row["test_interval"]["mean"]
        known = found is not None and not math.isnan(found)
        reaches.append(sign * 100 * (found - mean) if known else 0.0)
    return reaches
