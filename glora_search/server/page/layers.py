"""One subnet layer by layer, as tables: the data of the report's grid."""

from __future__ import annotations

from dataclasses import dataclass

from glora_search.reporting.blocks import group_by_block, split_name
from glora_search.reporting.tokens import in_order, short_form
from glora_search.server.page.charts import Key
from glora_search.server.page.choices import token_css
from glora_search.study.outcomes import Outcome
from search_spaces import SearchSpace, token_params


@dataclass(frozen=True)
class Cell:
    """The choice of a support tensor: its class, its short form, and what it is in full."""

    css: str
    text: str
    told: str


@dataclass(frozen=True)
class LayerLine:
    """A layer: its name within the block, its cells, its parameters, and these in per cent of the
    largest layer's.
    """

    kind: str
    cells: tuple[Cell, ...]
    n_params: int
    share: float


@dataclass(frozen=True)
class BlockTable:
    """A block of the backbone and its layers; the name is empty for layers outside of blocks."""

    name: str
    layers: tuple[LayerLine, ...]


@dataclass(frozen=True, kw_only=True)
class SubnetTables:
    """A subnet, layer by layer.

    Args:
        number: The trial.
        operator: What made it.
        generation: When.
        n_params: Trainable scalars, without the head.
        blocks: In the order of the backbone.
        keys: What the colours stand for.
    """

    number: int
    operator: str
    generation: int
    n_params: int
    blocks: tuple[BlockTable, ...]
    keys: tuple[Key, ...]


def subnet_tables(space: SearchSpace, number: int, outcome: Outcome) -> SubnetTables:
    """The tables of a trial's subnet."""
    subnet = outcome.candidate.subnet
    tokens = in_order(token for choices in space.choices.values() for token in choices)
    css = token_css(tokens)
    counts = {layer.name: subnet.layers[layer.name].n_params(layer) for layer in space.layers}
    most = max(counts.values()) or 1
    blocks = []
    for block in group_by_block(space.layers):
        lines = []
        for layer in block.layers:
            cells = []
            for support, token in subnet.layers[layer.name].items():
                n = token_params(support, token, layer)
                told = f"{layer.name}.{support}: {token}, {n:,} parameters"
                cells.append(Cell(css[token], short_form(token), told))
            n_params = counts[layer.name]
            share = round(100 * n_params / most, 1)
            lines.append(LayerLine(split_name(layer.name)[1], tuple(cells), n_params, share))
        blocks.append(BlockTable(block.name, tuple(lines)))
    return SubnetTables(
        number=number,
        operator=outcome.candidate.operator,
        generation=outcome.candidate.generation,
        n_params=outcome.candidate.n_params,
        blocks=tuple(blocks),
        keys=tuple(Key(f"area {css[token]}", _named(token)) for token in tokens),
    )


def _named(token: str) -> str:
    short = short_form(token)
    return token if short == token else f"{short} {token}"
