"""Shares by depth: a column a block, coloured by the difference from what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glora_search.reporting.blocks import Block, numbering
from glora_search.reporting.theme import TEMPLATE, left_title

_ROW_PX: Final = 21
_PANEL_GAP_PX: Final = 34
_LEAST_HEIGHT_PX: Final = 130  # the scale of colours stands beside the panels
_MOST_TEXT_COLUMNS: Final = 32
_LEAST_SPAN: Final = 25.0  # percentage points at full colour: small differences stay pale

# Purple for rarer, orange for more often than expected: colour-blind readers can tell the two.
_DIVERGING: Final = (
    (0.0, "#5E3C99"),
    (0.25, "#B2ABD2"),
    (0.5, "#F7F7F7"),
    (0.75, "#FDB863"),
    (1.0, "#C45A00"),
)


@dataclass(frozen=True)
class DepthCell:
    """A cell.

    Args:
        name: What was chosen, and where.
        best: Its share among the best subnets, a fraction.
        expected: Its share among uniform draws.
    """

    name: str
    best: float
    expected: float


@dataclass(frozen=True)
class DepthPanel:
    """A panel.

    Args:
        title: Stands above it.
        rows: The labels of its rows.
        cells: A row a label, a cell a block; None where the block has no such thing.
    """

    title: str
    rows: Sequence[str]
    cells: Sequence[Sequence[DepthCell | None]]

    def without_empty_rows(self) -> DepthPanel:
        """The rows that have a cell in any block."""
        kept = [k for k, row in enumerate(self.cells) if any(row)]
        return DepthPanel(self.title, [self.rows[k] for k in kept], [self.cells[k] for k in kept])


def depth_maps_figure(blocks: Sequence[Block], panels: Sequence[DepthPanel]) -> go.Figure:
    """Panels below one another that share depth as their horizontal axis.

    Args:
        blocks: The columns.
        panels: At least one, with at least one cell.
    """
    panels = [panel.without_empty_rows() for panel in panels]
    row_px = max(_ROW_PX, _LEAST_HEIGHT_PX / sum(len(panel.rows) for panel in panels))
    heights = [row_px * len(panel.rows) for panel in panels]
    gaps = _PANEL_GAP_PX * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=[height / sum(heights) for height in heights],
        vertical_spacing=_PANEL_GAP_PX / (sum(heights) + gaps) if gaps else 0,
        shared_xaxes=True,
    )
    span = max(
        _LEAST_SPAN,
        *(
            100 * abs(cell.best - cell.expected)
            for p in panels
            for r in p.cells
            for cell in r
            if cell
        ),
    )
    for row, panel in enumerate(panels, start=1):
        figure.add_trace(_map(panel, len(blocks), coloraxis="coloraxis"), row=row, col=1)
        suffix = row if row > 1 else ""
        left_title(figure, panel.title, xref="paper", yref=f"y{suffix} domain")
    figure.update_xaxes(
        tickvals=list(range(len(blocks))),
        ticktext=[escape(block.label) for block in blocks],
        showgrid=False,
        showline=False,
        ticks="",
        range=[-0.5, len(blocks) - 0.5],
    )
    shown = numbering(blocks)
    figure.update_xaxes(
        title_text=f"depth: block ({shown})" if shown else "block", row=len(panels), col=1
    )
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(
        autorange="reversed",
        fixedrange=True,
        showgrid=False,
        showline=False,
        ticks="",
        ticklabelstandoff=5,
    )
    figure.update_layout(
        template=TEMPLATE,
        height=round(sum(heights)) + gaps + 28 + 60,
        margin={"t": 28, "b": 60, "r": 110},
        coloraxis={
            "colorscale": _DIVERGING,
            "cmin": -span,
            "cmax": span,
            "colorbar": {
                "title": {"text": "best − expected<br>(percentage points)", "font": {"size": 11}},  # noqa: RUF001
                "thickness": 12,
                "lenmode": "pixels",
                "len": min(220, sum(heights) + gaps + 20),
                "nticks": 5,
                "y": 1,
                "yanchor": "top",
                "outlinewidth": 0,
                "tickfont": {"size": 11},
            },
        },
    )
    return figure


def _map(panel: DepthPanel, n_columns: int, coloraxis: str) -> go.Heatmap:
    def spread(of: Any) -> list[list[Any]]:
        return [[None if cell is None else of(cell) for cell in row] for row in panel.cells]

    options: dict[str, Any] = {}
    if n_columns <= _MOST_TEXT_COLUMNS:
        options = {"texttemplate": "%{text}", "textfont": {"size": 11}}
    return go.Heatmap(
        x=list(range(n_columns)),
        y=[escape(name) for name in panel.rows],
        z=spread(lambda cell: 100 * (cell.best - cell.expected)),
        text=[
            ["" if cell is None else f"{100 * cell.best:.0f}" for cell in row]
            for row in panel.cells
        ],
        customdata=spread(
            lambda cell: (
                f"<b>{escape(cell.name)}</b><br>best {100 * cell.best:.0f} %, "
                f"expected {100 * cell.expected:.0f} %"
            )
        ),
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        coloraxis=coloraxis,
        xgap=2,
        ygap=2,
        **options,
    )
