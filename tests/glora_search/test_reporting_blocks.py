"""Names of layers become depth: for the families that timm names differently."""

from __future__ import annotations

import pytest
from reporting_studies import SWIN, VIT

from glora_search.reporting.blocks import group_by_block, numbering, split_name
from search_spaces import LayerSpec


@pytest.mark.parametrize(
    ("layer", "block", "kind"),
    [
        ("blocks.3.attn.qkv", "blocks.3", "attn.qkv"),
        ("blocks.11.mlp.fc1", "blocks.11", "mlp.fc1"),
        ("layers.0.blocks.1.attn.qkv", "layers.0.blocks.1", "attn.qkv"),
        ("layers.1.downsample.reduction", "layers.1", "downsample.reduction"),
        ("stages.2.blocks.4.mlp.0", "stages.2.blocks.4", "mlp.0"),
        ("0.attn", "0", "attn"),
        ("fc1.proj2", "", "fc1.proj2"),
        ("head", "", "head"),
    ],
)
def test_block_ends_at_the_last_number_that_something_follows(
    layer: str, block: str, kind: str
) -> None:
    assert split_name(layer) == (block, kind)


def test_blocks_stand_in_the_order_of_the_network_with_short_labels() -> None:
    blocks = group_by_block(VIT.layers)
    assert [block.label for block in blocks] == ["0", "1", "2", "3"]
    assert [len(block.layers) for block in blocks] == [4, 4, 4, 4]
    assert numbering(blocks) == "blocks.N"
    swin = group_by_block(SWIN.layers)
    assert [block.label for block in swin] == ["0.0", "0.1", "1", "1.0"]
    assert numbering(swin) == "layers.N, layers.N.blocks.N"


def test_labels_are_names_where_numbers_do_not_tell_blocks_apart() -> None:
    layers = [LayerSpec(name, 2, 2, bias=True) for name in ("image.0.fc", "text.0.fc", "head")]
    blocks = group_by_block(layers)
    assert [block.label for block in blocks] == ["image.0", "text.0", "other"]


def test_layers_of_a_block_that_is_interrupted_come_together() -> None:
    """In some networks a layer of an outer block is named after those of inner ones."""
    names = ("blocks.0.a", "blocks.1.a", "blocks.0.b")
    blocks = group_by_block(LayerSpec(name, 2, 2, bias=True) for name in names)
    assert [[layer.name for layer in block.layers] for block in blocks] == [
        ["blocks.0.a", "blocks.0.b"],
        ["blocks.1.a"],
    ]
