"""Chains of blocks: found where they are, never where they only look so; resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from small_networks import (
    DIGITS,
    FAMILIES,
    backbone_of,
    each_of,
    filled_supernet,
    images_for,
    subnets_of,
)
from torch import Tensor, nn

from search_spaces import LayerConfig, SubnetConfig
from supernet.chain import BlockChain

CHAINS = sorted(set(FAMILIES) - {"Swin", "Swin v2"})


@each_of(CHAINS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_going_on_from_any_boundary_gives_the_same_logits(family: str, precision: str) -> None:
    """To the last bit: they are the same operations on the same tensors."""
    supernet = filled_supernet(FAMILIES[family])
    model = supernet.plain()
    supernet.merge_into(model, supernet.space.max_subnet())
    images = images_for(model)
    context = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.inference_mode(), context:
        alone = model(images)
        chain = BlockChain.find(model, supernet.layers, context)
        assert chain is not None
        assert chain.n_blocks == 2
        assert chain.has_stem
        everything = range(chain.n_blocks + 1)
        whole, made = chain.run(model, images, start=0, kept={}, keep=everything)
        assert set(made) == set(everything)
        assert torch.equal(whole, alone)
        for start in everything:
            logits, now = chain.run(model, images, start=start, kept=made, keep=everything)
            assert torch.equal(logits, alone)
            assert set(now) == set(range(start + 1, chain.n_blocks + 1)), "the rest is not made"
        only_this = {chain.n_blocks: made[chain.n_blocks]}
        logits, _ = chain.run(model, images, start=chain.n_blocks, kept=only_this, keep=())
        assert torch.equal(logits, alone), "without the patch embedding as well"
        assert torch.equal(model(images), alone), "the network itself computes what it did"


@pytest.mark.parametrize("family", ["Swin", "Swin v2"])
def test_networks_in_stages_are_not_chains(family: str) -> None:
    supernet = filled_supernet(FAMILIES[family])
    assert BlockChain.find(supernet.plain(), supernet.layers) is None


def test_skipped_blocks_are_not_computed() -> None:
    model = backbone_of(DIGITS)
    chain = BlockChain.find(model, ())
    assert chain is not None
    images = images_for(model)
    calls: list[nn.Module] = []
    for module in (model.patch_embed.proj, *(block.attn for block in model.blocks)):
        module.register_forward_pre_hook(lambda m, _x: calls.append(m))
    with torch.no_grad():
        _, made = chain.run(model, images, start=0, kept={}, keep=(0, 1))
        calls.clear()
        chain.run(model, images, start=1, kept=made, keep=())
    assert calls == [model.blocks[1].attn]


def test_what_is_kept_takes_the_bytes_that_are_told() -> None:
    model = backbone_of(DIGITS)
    chain = BlockChain.find(model, ())
    assert chain is not None
    images = images_for(model, 5)
    with torch.no_grad():
        _, made = chain.run(model, images, start=0, kept={}, keep=(0, 1, 2))
    assert max(tensor.nbytes for tensor in made.values()) == 5 * chain.bytes_an_image


class Small(nn.Module):
    """Blocks over 8 numbers, in whatever way `body` uses them."""

    pretrained_cfg = {"input_size": (1, 2, 4)}  # noqa: RUF012 - as timm's models have it

    def __init__(self, body: Callable[[Any, Tensor], Tensor], n_blocks: int = 3) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(n_blocks))
        self.aside = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self, self.patch_embed(images.flatten(1))))


def in_order(model: Any, x: Tensor) -> Tensor:
    for block in model.blocks:
        x = block(x).relu() if model.training else block(x)
    return x


def reads_an_inner_boundary(model: Any, x: Tensor) -> Tensor:
    first = model.blocks[0](x)
    return model.blocks[2](model.blocks[1](first)) + first


def reads_shapes_only(model: Any, x: Tensor) -> Tensor:
    first = model.blocks[0](x)
    return model.blocks[2](model.blocks[1](first)) / first.shape[1]


def writes_to_a_boundary(model: Any, x: Tensor) -> Tensor:
    first = model.blocks[0](x)
    second = model.blocks[1](first)
    first.mul_(2)
    return model.blocks[2](second)


def changes_between_blocks(model: Any, x: Tensor) -> Tensor:
    return model.blocks[2](model.blocks[1](model.blocks[0](x)).relu())


def out_of_order(model: Any, x: Tensor) -> Tensor:
    return model.blocks[2](model.blocks[0](model.blocks[1](x)))


def twice(model: Any, x: Tensor) -> Tensor:
    return in_order(model, in_order(model, x))


def not_all(model: Any, x: Tensor) -> Tensor:
    return model.blocks[1](model.blocks[0](x))


@pytest.mark.parametrize(
    ("body", "is_chain"),
    [
        (in_order, True),
        (reads_shapes_only, True),
        (reads_an_inner_boundary, False),
        (writes_to_a_boundary, False),
        (changes_between_blocks, False),
        (out_of_order, False),
        (twice, False),
        (not_all, False),
    ],
)
def test_what_only_looks_like_a_chain_is_not_taken_for_one(body: Any, is_chain: bool) -> None:
    """A wrong guess would be a wrong fitness."""
    model = Small(body).eval()
    images = images_for(model)
    with torch.no_grad():
        before = model(images)
        assert (BlockChain.find(model, ()) is not None) == is_chain
        assert torch.equal(model(images), before)


def writes_to_the_patches(model: Any, x: Tensor) -> Tensor:
    return in_order(model, x.mul_(2))


def test_patches_that_are_written_to_are_not_kept() -> None:
    chain = BlockChain.find(Small(writes_to_the_patches).eval(), ())
    assert chain is not None
    assert not chain.has_stem


def with_layers_around(model: Any, x: Tensor) -> Tensor:
    return in_order(model, x + model.aside(x))


def subnet(**tokens: str) -> SubnetConfig:
    """B of some layers, by names with `_` for a dot."""
    names = ("patch_embed", "aside", "blocks.0", "blocks.1", "blocks.2", "head")
    return SubnetConfig({n: LayerConfig(B=tokens.get(n.replace(".", "_"), "none")) for n in names})


def test_layers_around_the_blocks_count_where_they_are_called() -> None:
    """One before them changes every boundary, one behind them changes none."""
    model = Small(with_layers_around).eval()
    names = list(subnet().layers)
    chain = BlockChain.find(model, names)
    assert chain is not None
    assert not chain.has_stem, "a patch embedding that subnets change is not shared"
    none = chain.path(subnet())
    assert chain.path(subnet(head="vector")) == none
    for name in ("patch_embed", "aside", "blocks_0"):
        assert chain.path(subnet(**{name: "vector"}))[0] != none[0]
    assert chain.path(subnet(blocks_1="vector"))[0] == none[0]
    assert chain.path(subnet(blocks_1="vector"))[1] != none[1]
    assert chain.path(subnet(blocks_2="vector"))[:2] == none[:2]


def test_equal_paths_mean_equal_boundaries() -> None:
    """Of real subnets, whatever they differ in further on."""
    supernet = filled_supernet(DIGITS)
    model = supernet.plain()
    chain = BlockChain.find(model, supernet.layers)
    assert chain is not None
    one, other = supernet.space.max_subnet(), subnets_of(supernet.space)[2]
    mixed = SubnetConfig(
        {n: (one if n.startswith("blocks.0") else other).layers[n] for n in one.layers}
    )
    assert chain.path(mixed)[0] == chain.path(one)[0]
    assert chain.path(mixed)[1] == chain.path(other)[1]
    images, boundaries = images_for(model), []
    for config in (one, mixed, other):
        supernet.merge_into(model, config)
        with torch.no_grad():
            boundaries.append(chain.run(model, images, start=0, kept={}, keep=(1, 2))[1])
    assert torch.equal(boundaries[0][1], boundaries[1][1])
    assert not torch.equal(boundaries[1][1], boundaries[2][1])
    assert not torch.equal(boundaries[0][2], boundaries[1][2])
