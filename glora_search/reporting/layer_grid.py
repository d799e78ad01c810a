"""One subnet layer by layer: which choice and rank each support tensor has, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise
from typing import Any, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glora_search.reporting.blocks import Block, group_by_block, split_name
from glora_search.reporting.theme import INK, TEMPLATE
from glora_search.reporting.tokens import colours, in_order, short_form
from search_spaces import SUPPORTS, LayerSpec, SearchSpace, SubnetConfig, token_params

_ROW_PX: Final = 21
_HEADING: Final = 0.85  # the line above a block that names it, in rows
_GAP: Final = 0.4  # above a block without a name
_ONE_COLUMN: Final = 14  # rows; a longer list stands in two columns
_LONGEST_NAME: Final = 24  # of a block; longer ones are told by their numbers
_CHARACTER_PX: Final = 6.6
_CELLS_PX: Final = 250  # the least that five cells and the totals need


@dataclass(frozen=True)
class _Line:
    """A line of the grid: a layer's, or without a layer the space above a block."""

    label: str
    layer: LayerSpec | None
    height: float


def layer_grid_figures(space: SearchSpace, subnet: SubnetConfig) -> tuple[go.Figure, ...]:
    """The grid of a subnet: a row a layer, a column a support tensor, and the layers' totals.

    Args:
        space: Gives the layers' shapes and the tokens that share the colours.
        subnet: What to draw.

    Returns:
        One figure, or two to stand beside each other, the first with the earlier blocks.
    """
    columns = [_lines(blocks) for blocks in _columns(group_by_block(space.layers))]
    longest = max(len(line.label) for lines in columns for line in lines)
    return tuple(
        _grid(
            lines,
            space,
            subnet,
            margin_px=round(_CHARACTER_PX * longest) + 20,
            rows=max(sum(line.height for line in part) for part in columns),
        )
        for lines in columns
    )


def least_width_px(figure: go.Figure) -> int:
    """The width below which the cells of one of these figures no longer hold their text."""
    return int(figure.layout.margin.l + figure.layout.margin.r) + _CELLS_PX


def _columns(blocks: Sequence[Block]) -> list[Sequence[Block]]:
    n_rows = sum(len(block.layers) for block in blocks)
    if n_rows <= _ONE_COLUMN or len(blocks) < 2:
        return [blocks]
    cut, filled = 0, 0
    while cut < len(blocks) - 1 and filled + len(blocks[cut].layers) / 2 <= n_rows / 2:
        filled += len(blocks[cut].layers)
        cut += 1
    return [blocks[:cut], blocks[cut:]]


def _lines(blocks: Sequence[Block]) -> list[_Line]:
    lines = []
    for k, block in enumerate(blocks):
        if block.name:
            label = block.name if len(block.name) <= _LONGEST_NAME else block.label
            lines.append(_Line(label, None, _HEADING))
        elif k:
            lines.append(_Line("", None, _GAP))
        lines += [_Line(split_name(layer.name)[1], layer, 1) for layer in block.layers]
    return lines


def _grid(
    lines: Sequence[_Line],
    space: SearchSpace,
    subnet: SubnetConfig,
    *,
    margin_px: int,
    rows: float,
) -> go.Figure:
    edges = [0.0, *accumulate(line.height for line in lines)]
    centres = [(top + bottom) / 2 for top, bottom in pairwise(edges)]
    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.66, 0.34], horizontal_spacing=0.015, shared_yaxes=True
    )
    figure.add_trace(_cells(edges, lines, space, subnet), row=1, col=1)
    _add_totals(figure, centres, lines, space, subnet)
    quiet: dict[str, Any] = {"showgrid": False, "showline": False, "ticks": "", "fixedrange": True}
    figure.update_xaxes(**quiet, side="top", automargin=False, tickfont={"color": INK})
    figure.update_xaxes(
        tickvals=[k + 0.5 for k in range(len(SUPPORTS))],
        ticktext=[f"<b>{support}</b>" for support in SUPPORTS],
        range=[0, len(SUPPORTS)],
        row=1,
        col=1,
    )
    figure.update_yaxes(**quiet, range=[rows, 0], automargin=False, ticklabelstandoff=6)
    figure.update_yaxes(
        tickvals=centres,
        ticktext=[
            escape(line.label) if line.layer else f"<b>{escape(line.label)}</b>" for line in lines
        ],
        row=1,
        col=1,
    )
    figure.update_layout(
        template=TEMPLATE,
        height=round(_ROW_PX * rows) + 36,
        margin={"l": margin_px, "r": 8, "t": 28, "b": 8},
        bargap=0,
    )
    return figure


def _cells(
    edges: Sequence[float], lines: Sequence[_Line], space: SearchSpace, subnet: SubnetConfig
) -> go.Heatmap:
    tokens = in_order(token for choices in space.choices.values() for token in choices)
    code = {token: k for k, token in enumerate(tokens)}
    palette = colours(tokens)
    codes: list[list[int | None]] = []
    texts: list[list[str]] = []
    told: list[list[str]] = []
    for line in lines:
        if line.layer is None:
            codes.append([None] * len(SUPPORTS))
            texts.append([""] * len(SUPPORTS))
            told.append([""] * len(SUPPORTS))
            continue
        chosen = dict(subnet.layers[line.layer.name].items())
        codes.append([code[token] for token in chosen.values()])
        texts.append([short_form(token) for token in chosen.values()])
        told.append([_told(line.layer, support, token) for support, token in chosen.items()])
    steps = len(tokens)
    return go.Heatmap(
        x=list(range(len(SUPPORTS) + 1)),
        y=list(edges),
        z=codes,
        text=texts,
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=told,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        zmin=-0.5,
        zmax=steps - 0.5,
        colorscale=[
            [(k + side) / steps, palette[token]]
            for k, token in enumerate(tokens)
            for side in (0, 1)
        ],
        showscale=False,
        xgap=2,
        ygap=2,
    )


def _add_totals(
    figure: go.Figure,
    centres: Sequence[float],
    lines: Sequence[_Line],
    space: SearchSpace,
    subnet: SubnetConfig,
) -> None:
    """Bars at the right: the parameters of each layer, on the same scale in all columns."""
    totals = {layer.name: subnet.layers[layer.name].n_params(layer) for layer in space.layers}
    whole, largest = sum(totals.values()), max(totals.values())
    placed = [
        (y, line.layer.name)
        for y, line in zip(centres, lines, strict=True)
        if line.layer is not None
    ]
    figure.add_trace(
        go.Bar(
            x=[totals[name] for _, name in placed],
            y=[y for y, _ in placed],
            orientation="h",
            width=0.62,
            marker={"color": "#B0B8C1"},
            text=[f"{totals[name]:,}" for _, name in placed],
            textposition="outside",
            textfont={"size": 11},
            cliponaxis=False,
            hovertemplate=[
                f"{escape(name)}: {totals[name]:,} parameters, "
                f"{100 * totals[name] / (whole or 1):.1f} % of the subnet<extra></extra>"
                for _, name in placed
            ],
            showlegend=False,
        ),
        row=1,
        col=2,
    )
    beside = 1 + 0.17 * len(f"{largest:,}")  # room for the number at the end of the longest bar
    figure.update_xaxes(
        range=[0, beside * (largest or 1)],
        tickvals=[0],
        ticktext=["<b>layer total</b>"],
        ticklabelposition="outside right",
        row=1,
        col=2,
    )


def _told(layer: LayerSpec, support: str, token: str) -> str:
    n_params = token_params(support, token, layer)
    return (
        f"<b>{escape(layer.name)}.{support}</b>: {token}<br>"
        f"{n_params:,} parameter{'' if n_params == 1 else 's'} "
        f"(layer {layer.in_features} → {layer.out_features})"
    )
