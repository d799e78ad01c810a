"""Averages of subnets: one plain network with the mean of the merged weights, and its adapter."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from formulas import rebuilt
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_networks import (
    CLASSES,
    DIGITS,
    FAMILIES,
    VIT_WITHOUT_QKV_BIAS,
    backbone_of,
    digits,
    each_of,
    filled_supernet,
    images_for,
    subnets_of,
)
from torch import Tensor

from search_spaces import InvalidConfigError, LayerConfig, SubnetConfig
from supernet import AdapterBank, Architecture, Preprocessing, Storage, Supernet
from supernet.average_export import average_export
from supernet.export import subnet_export, write_export
from supernet.fingerprints import backbone_fingerprint
from supernet.merging import stored_shapes

storages = pytest.mark.parametrize("storage", ["entangled", "separate"])
families = each_of(["ViT", "ViT without qkv bias", "DeiT, distilled", "EVA", "BEiT", "Swin"])


@functools.cache
def trained(architecture: str = "digits", storage: Storage = "entangled") -> Supernet:
    """A supernet in which no support tensor is zero."""
    return filled_supernet(FAMILIES.get(architecture, DIGITS), storage=storage)


def mean_of_merges(supernet: Supernet, subnets: list[SubnetConfig]) -> dict[str, Tensor]:
    """By hand: the merged networks' tensors, a bias that is not there as zero."""
    states = [supernet.merge(subnet).state_dict() for subnet in subnets]
    mean = {}
    for name in {name: None for state in states for name in state}:
        tensors = [state[name].double() for state in states if name in state]
        mean[name] = (torch.stack(tensors).sum(0) / len(states)).float()
    return mean


def check(supernet: Supernet, subnets: list[SubnetConfig]) -> None:
    """The network is the mean of the merges bit for bit; its adapter rebuilds it."""
    exportable = average_export(supernet, subnets)
    state = exportable.network.state_dict()
    expected = mean_of_merges(supernet, subnets)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())

    adapter = dict(exportable.adapter)
    configs = SubnetConfig.from_json(json.dumps(exportable.origin)).layers
    for name, layer in supernet.layers.items():
        own = {
            key.removeprefix(f"{name}."): adapter.pop(key)
            for key in list(adapter)
            if key.startswith(f"{name}.")
        }
        shapes = stored_shapes(configs[name], layer.out_features, layer.in_features)
        assert {key: tuple(tensor.shape) for key, tensor in own.items()} == shapes
        weight, bias = rebuilt(
            layer.weight.double(),
            None if layer.bias is None else layer.bias.double(),
            {key: tensor.double() for key, tensor in own.items()},
        )
        close = {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(state[f"{name}.weight"], weight.float(), **close)
        found = state.get(f"{name}.bias", torch.zeros_like(bias).float())
        torch.testing.assert_close(found, bias.float(), **close)
    assert adapter.keys() == supernet.head_state().keys()


@pytest.mark.slow
@storages
@families
def test_the_average_is_the_mean_of_the_merged_weights(family: str, storage: Storage) -> None:
    supernet = trained(family, storage)
    check(supernet, subnets_of(supernet.space))


@pytest.mark.slow
@storages
@settings(max_examples=15, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 5), max_size=5),
    n_least=st.integers(0, 2),
    n_largest=st.integers(0, 2),
)
def test_any_set_of_subnets(
    storage: Storage, seeds: list[int], n_least: int, n_largest: int
) -> None:
    """Some twice, some that change nothing, or nothing but such."""
    supernet = trained("digits", storage)
    space = supernet.space
    subnets = [space.sample(random.Random(seed)) for seed in seeds]
    subnets += [space.min_subnet()] * n_least + [space.max_subnet()] * n_largest
    if subnets:
        check(supernet, subnets)


@storages
@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (("none", "none"), "none"),
        (("constant", "none"), "constant"),
        (("constant", "vector"), "vector"),
        (("vector", "none"), "vector"),
        (("lora_2", "none"), "lora_2"),
        (("lora_2", "lora_4"), "lora_4"),
        (("lora_2", "constant"), "lora_3"),
        (("lora_4", "lora_2", "vector", "constant"), "lora_5"),
    ],
)
def test_the_adapter_has_the_smallest_form(
    storage: Storage, tokens: tuple[str, ...], expected: str
) -> None:
    """Of A and B alike; a product of C is a vector, since it has one column."""
    supernet = trained("digits", storage)
    none = dict(supernet.space.min_subnet().layers)
    name = next(iter(none))
    for support in "AB":
        subnets = [SubnetConfig({**none, name: LayerConfig(**{support: t})}) for t in tokens]
        layers = average_export(supernet, subnets).origin["layers"]
        assert layers[name] == {**dict.fromkeys("ABCDE", "none"), support: expected}
        assert all(set(c.values()) == {"none"} for k, c in layers.items() if k != name)
    subnets = [SubnetConfig({**none, name: LayerConfig(C=t)}) for t in ("lora_2", "none")]
    assert average_export(supernet, subnets).origin["layers"][name]["C"] == "vector"


@storages
def test_the_average_of_one_is_its_export(storage: Storage) -> None:
    """Bit for bit; and of the same subnet three times as well."""
    supernet = trained("digits", storage)
    for subnet in subnets_of(supernet.space):
        single = subnet_export(supernet, subnet)
        for times in (1, 3):
            average = average_export(supernet, [subnet] * times)
            state = average.network.state_dict()
            expected = single.network.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
            alike = [key for key in single.adapter if ".C" not in key]
            assert all(torch.equal(average.adapter[key], single.adapter[key]) for key in alike)


@dataclass(frozen=True, eq=False)
class RandomImages:
    """What a split needs for a comparison of logits."""

    images: Tensor

    def batches(self, batch_size: int) -> list[tuple[Tensor, None]]:
        return [(self.images, None)]


@each_of(["digits", "ViT without qkv bias", "EVA"])
def test_the_logit_difference_is_that_of_the_unmerged_adapter(family: str) -> None:
    """Small where the network is the average; and it is seen where it is not."""
    supernet = trained(family)
    subnets = subnets_of(supernet.space)
    exportable = average_export(supernet, subnets)
    split: Any = digits()[1]
    if family != "digits":
        split = RandomImages(images_for(exportable.network))
    assert exportable.logit_difference(split) < 1e-3
    with torch.no_grad():
        next(m for m in exportable.network.modules() if isinstance(m, torch.nn.Linear)).weight += 1
    assert exportable.logit_difference(split) > 1e-2


@pytest.mark.parametrize("architecture", [DIGITS, VIT_WITHOUT_QKV_BIAS], ids=["digits", "no bias"])
def test_a_bank_takes_an_export_of_an_average(architecture: Architecture, tmp_path: Path) -> None:
    """By its directory: the weights within rounding, and so the logits."""
    supernet = filled_supernet(architecture)
    subnets = subnets_of(supernet.space)[2:]
    exportable = average_export(supernet, subnets)
    plain = backbone_of(architecture)
    write_export(
        tmp_path / "average",
        exportable,
        architecture=replace(architecture, num_classes=CLASSES),
        preprocessing=Preprocessing.from_model(plain),
        class_names=None,
        record={"fingerprints": {"backbone": backbone_fingerprint(plain)}},
    )
    bank = AdapterBank(plain)
    bank.add("average", tmp_path / "average")
    bank.attach("average")
    expected = load_file(tmp_path / "average" / "model.safetensors")
    state = bank.backbone.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        images = images_for(exportable.network)
        torch.testing.assert_close(bank(images), exportable.network(images), rtol=1e-4, atol=1e-4)


def test_the_origin_names_each_subnet() -> None:
    supernet = trained()
    subnets = subnets_of(supernet.space)[:2] * 2
    assert average_export(supernet, subnets).origin["average_of"] == [
        {"digest": subnet.digest, "weight": 0.25} for subnet in subnets
    ]


def test_nothing_and_a_foreign_subnet_are_refused() -> None:
    supernet = trained()
    foreign = SubnetConfig({"blocks.9.attn.qkv": LayerConfig()})
    with pytest.raises(InvalidConfigError, match="no subnets are given"):
        average_export(supernet, [])
    with pytest.raises(InvalidConfigError, match="not a subnet of this search space"):
        average_export(supernet, [supernet.space.max_subnet(), foreign])
