"""Pictures of choices: their shares among the best subnets beside what uniform draws would give.

Three views, from coarse to fine: each support tensor over the whole network, where low-rank choices
concentrate (block by kind of layer), and all choices by depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glora_search.reporting.blocks import group_by_block, split_name
from glora_search.reporting.depth_maps import DepthCell, DepthPanel, depth_maps_figure
from glora_search.reporting.frequencies import Shares, low_rank_share, pool
from glora_search.reporting.theme import INK, MUTED, TEMPLATE, left_title
from glora_search.reporting.tokens import colours, in_order, short_form
from search_spaces import SUPPORTS, Gene, SearchSpace, rank_of


@dataclass(frozen=True, kw_only=True)
class ChoiceShares:
    """The shares that the figures compare.

    Args:
        best: Among the best subnets.
        evaluated: Among all evaluated ones.
        expected: Among uniform draws from the search space.
    """

    best: Shares
    evaluated: Shares
    expected: Shares


def overall_figure(space: SearchSpace, shares: ChoiceShares) -> go.Figure:
    """The shares of each support tensor's tokens, over all layers: one panel a support tensor."""
    tokens = in_order(gene_token for gene in space.genes for gene_token in gene.choices)
    palette = colours(tokens)
    figure = make_subplots(rows=1, cols=len(SUPPORTS), shared_yaxes=True, horizontal_spacing=0.02)
    largest = 0.0
    figure.add_trace(_key("the best (bars)", "square", "#D9DDE2"), row=1, col=1)
    for col, support in enumerate(SUPPORTS, start=1):
        genes = _genes(space, support)
        best, evaluated, expected = (
            pool(part, genes) for part in (shares.best, shares.evaluated, shares.expected)
        )
        largest = max(largest, *best.values(), *evaluated.values(), *expected.values())
        own = in_order(token for gene in genes for token in gene.choices)
        names = [short_form(token) for token in own]
        told = [
            f"<b>{support} {token}</b><br>best {_percent(best, token)}<br>"
            f"all evaluated {_percent(evaluated, token)}<br>"
            f"uniform draws {_percent(expected, token)}<extra></extra>"
            for token in own
        ]
        figure.add_trace(
            go.Bar(
                x=[100 * best.get(token, 0.0) for token in own],
                y=names,
                orientation="h",
                marker={
                    "color": [palette[token] for token in own],
                    "line": {"color": "#8C96A3", "width": 0.8},
                },
                hovertemplate=told,
                showlegend=False,
            ),
            row=1,
            col=col,
        )
        for name, part, symbol in (
            ("all evaluated subnets", evaluated, "circle-open"),
            ("uniform draws from the space", expected, "line-ns"),
        ):
            figure.add_trace(
                go.Scatter(
                    x=[100 * part.get(token, 0.0) for token in own],
                    y=names,
                    mode="markers",
                    marker={
                        "symbol": symbol,
                        "color": INK,
                        "size": 7 if symbol == "circle-open" else 15,
                        "line": {"color": INK, "width": 1.4 if symbol == "circle-open" else 2},
                    },
                    name=name,
                    legendgroup=name,
                    showlegend=col == 1,
                    hovertemplate=told,
                ),
                row=1,
                col=col,
            )
        left_title(
            figure, f"<b>{support}</b>", xref=f"x{col if col > 1 else ''} domain", yref="paper"
        )
    figure.update_xaxes(range=[0, 105 * largest], fixedrange=True, title_text="share (%)", nticks=5)
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[short_form(token) for token in tokens],
        fixedrange=True,
        showgrid=False,
        ticks="",
        ticklabelstandoff=4,
    )
    figure.update_layout(
        template=TEMPLATE,
        height=26 * len(tokens) + 130,
        margin={"t": 66},
        bargap=0.25,
    )
    return figure


def low_rank_figure(space: SearchSpace, shares: ChoiceShares) -> go.Figure | None:
    """Where low-rank choices concentrate: for A, B and C, each kind of layer in each block.

    Returns:
        None where the space offers no ranks.
    """
    blocks = group_by_block(space.layers)
    kinds = list(dict.fromkeys(split_name(layer.name)[1] for layer in space.layers))
    genes = {gene.name: gene for gene in space.genes}
    panels = []
    for support in SUPPORTS:
        if not any(map(rank_of, space.choices[support])):
            continue
        cells: list[list[DepthCell | None]] = [[None] * len(blocks) for _ in kinds]
        for column, block in enumerate(blocks):
            for layer in block.layers:
                gene = genes[f"{layer.name}.{support}"]
                if not any(map(rank_of, gene.choices)):
                    continue
                cells[kinds.index(split_name(layer.name)[1])][column] = DepthCell(
                    f"{gene.name} low-rank",
                    low_rank_share(shares.best, gene),
                    low_rank_share(shares.expected, gene),
                )
        panels.append(DepthPanel(f"<b>{support}</b> low-rank, by kind of layer", kinds, cells))
    return depth_maps_figure(blocks, panels) if panels else None


def by_depth_figure(space: SearchSpace, shares: ChoiceShares) -> go.Figure:
    """The shares of all choices of A to E by depth, over the layers of a block."""
    blocks = group_by_block(space.layers)
    panels = []
    for support in SUPPORTS:
        tokens = in_order(space.choices[support])[::-1]
        cells: list[list[DepthCell | None]] = [[None] * len(blocks) for _ in tokens]
        for column, block in enumerate(blocks):
            names = {f"{layer.name}.{support}" for layer in block.layers}
            genes = [gene for gene in space.genes if gene.name in names]
            best, expected = pool(shares.best, genes), pool(shares.expected, genes)
            for row, token in enumerate(tokens):
                if token in expected or token in best:
                    cells[row][column] = DepthCell(
                        f"{support} {token} in {block.name or block.label}",
                        best.get(token, 0.0),
                        expected.get(token, 0.0),
                    )
        panels.append(
            DepthPanel(f"<b>{support}</b>", [short_form(token) for token in tokens], cells)
        )
    return depth_maps_figure(blocks, panels)


def _genes(space: SearchSpace, support: str) -> list[Gene]:
    return [gene for gene in space.genes if gene.support == support]


def _percent(shares: dict[str, float], token: str) -> str:
    return f"{100 * shares.get(token, 0.0):.1f} %"


def _key(name: str, symbol: str, colour: str) -> go.Scatter:
    """A trace without points: an entry of the legend."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={
            "symbol": symbol,
            "color": colour,
            "size": 12,
            "line": {"color": MUTED, "width": 0.8},
        },
        name=name,
        hoverinfo="skip",
    )
