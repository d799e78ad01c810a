"""From layer names to depth: which block of the backbone a layer is in, and its name within it.

timm numbers its blocks in module names: `blocks.3.attn.qkv`, in Swin `layers.0.blocks.1.attn.qkv`.
The block is what the name says up to its last number that something follows. Layers without a
number share a block with an empty name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from search_spaces import LayerSpec

_NAME: Final = re.compile(r"(?:(?P<block>.*\.\d+|\d+)\.)?(?P<kind>.+)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Layers of one block, in the order in which the backbone applies them.

    Args:
        name: Such as `blocks.3`; empty for layers whose names hold no number.
        label: What distinguishes it from the other blocks, such as `3` or `0.1`.
        layers: Its layers.
    """

    name: str
    label: str
    layers: tuple[LayerSpec, ...]


def split_name(layer: str) -> tuple[str, str]:
    """(block, kind): `blocks.3.attn.qkv` gives `blocks.3` and `attn.qkv`."""
    match = _NAME.fullmatch(layer)
    if match is None:  # only a name with a line break
        return "", layer
    return match["block"] or "", match["kind"]


def group_by_block(layers: Iterable[LayerSpec]) -> tuple[Block, ...]:
    """The blocks in the order of their first layers, each with all of its layers."""
    grouped: dict[str, list[LayerSpec]] = {}
    for layer in layers:
        grouped.setdefault(split_name(layer.name)[0], []).append(layer)
    labels = _labels(grouped)
    return tuple(
        Block(name=name, label=labels[name], layers=tuple(members))
        for name, members in grouped.items()
    )


def numbering(blocks: Iterable[Block]) -> str:
    """What the labels stand for, for an axis title: `blocks.N`, `layers.N.blocks.N`; or ``."""
    patterns = {re.sub(r"\d+", "N", block.name) for block in blocks if block.name}
    return ", ".join(sorted(patterns))


def _labels(names: Iterable[str]) -> dict[str, str]:
    """The numbers of each name, where they tell the names apart; else the names."""
    short = {name: ".".join(re.findall(r"(?<!\w)\d+(?!\w)", name)) or name for name in names}
    labels = short if len(set(short.values())) == len(short) else {name: name for name in short}
    return {name: label or "other" for name, label in labels.items()}
