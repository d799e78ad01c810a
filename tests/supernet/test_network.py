"""The supernet over every family of backbones: what it computes, merges, shares and refuses."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from small_networks import (
    DIGITS,
    FAMILIES,
    VIT_WITHOUT_QKV_BIAS,
    backbone_of,
    each_of,
    fill_support_tensors,
    filled_supernet,
    images_for,
    space_of,
    subnets_of,
    supernet_of,
)
from torch import Tensor, nn

from search_spaces import InvalidConfigError, LayerConfig, LayerSpec, SearchSpace, SubnetConfig
from supernet import Architecture, GLoRALinear, Supernet
from supernet.errors import BackboneError, CheckpointError

# Their attention adds the bias of q and v to the product in one operation, the supernet's in two.
ONE_ROUNDING_APART = {"EVA", "BEiT", "Swin v2"}
families = each_of()


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


def changed(config: SubnetConfig, layer: str, **tokens: str) -> SubnetConfig:
    """`config` with other tokens in one layer."""
    old = dict(config.layers[layer].items())
    return SubnetConfig({**config.layers, layer: LayerConfig(**{**old, **tokens})})


def assert_same_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    now = model.state_dict()
    assert now.keys() == state.keys()
    assert all(torch.equal(now[name], value) for name, value in state.items())


# Over every family


@families
def test_an_untrained_supernet_is_the_backbone(family: str) -> None:
    """With no subnet and with every subnet: nothing has been learnt yet."""
    architecture = FAMILIES[family]
    backbone = backbone_of(architecture).double()
    images = images_for(backbone)
    expected = logits(backbone, images)
    space = space_of(backbone, architecture)
    supernet = Supernet(backbone, space).eval()
    for subnet in [None, *subnets_of(space)]:
        supernet.set_active_subnet(subnet)
        found = logits(supernet, images)
        if family in ONE_ROUNDING_APART:
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
        else:
            assert torch.equal(found, expected)


@families
def test_a_merged_subnet_computes_what_the_subnet_computes(family: str) -> None:
    """In float64, where nothing but a wrong formula can make a difference."""
    supernet = filled_supernet(FAMILIES[family]).double()
    images = images_for(supernet.backbone)
    plain = logits(supernet, images)
    for subnet in subnets_of(supernet.space):
        supernet.set_active_subnet(subnet)
        unmerged = logits(supernet, images)
        torch.testing.assert_close(
            logits(supernet.merge(subnet), images), unmerged, rtol=1e-9, atol=1e-10
        )
        if supernet.space.n_params(subnet):
            assert (unmerged - plain).abs().max() > 1e-2, "a subnet that adapts nothing"


@families
def test_every_layer_matters(family: str) -> None:
    """Adapting one layer alone changes the logits, so no layer's adapters are dead weight."""
    supernet = filled_supernet(FAMILIES[family])
    images = images_for(supernet.backbone)
    before = logits(supernet, images)
    nothing = supernet.space.min_subnet()
    for name in supernet.layers:
        supernet.set_active_subnet(changed(nothing, name, A="lora_4", B="constant"))
        assert (logits(supernet, images) - before).abs().max() > 1e-4, name


@families
def test_a_merged_model_has_the_names_that_timm_gives(family: str) -> None:
    """Nothing of GLoRA is left, and timm's own loader takes the state dict."""
    architecture = FAMILIES[family]
    supernet = filled_supernet(architecture)
    own = set(architecture.build().state_dict())
    biased = set(architecture.with_added_biases().build().state_dict())
    for subnet in subnets_of(supernet.space):
        merged = supernet.merge(subnet)
        assert not any(isinstance(module, GLoRALinear) for module in merged.modules())
        gives_bias = any(
            subnet.layers[name].C != "none" or subnet.layers[name].E != "none"
            for name, layer in supernet.layers.items()
            if layer.bias is None
        )
        assert set(merged.state_dict()) == (biased if gives_bias else own)
    if family == "ViT without qkv bias":
        assert biased > own, "this family stands for added biases"


@families
def test_only_support_tensors_and_head_train(family: str) -> None:
    """After one real step nothing else has moved, and nothing else has a gradient."""
    supernet = filled_supernet(FAMILIES[family])
    state = copy.deepcopy(supernet.state_dict())
    trained = dict(supernet.trainable_parameters())
    heads = tuple(f"{name}." for name in supernet.head_names)
    adapters = {
        f"{name}.{key}" for name, layer in supernet.layers.items() for key in layer.adapter_names
    }
    assert {n for n in trained if not n.startswith(heads)} == adapters
    assert any(n.startswith(heads) for n in trained)
    supernet.train().set_active_subnet(supernet.space.max_subnet())
    supernet(images_for(supernet.backbone)).square().sum().backward()
    torch.optim.SGD(supernet.parameters(), lr=0.1).step()
    frozen = {n: t for n, t in state.items() if n.removeprefix("backbone.") not in trained}
    assert frozen
    assert all(torch.equal(supernet.state_dict()[n], t) for n, t in frozen.items())
    for name in heads:
        assert not torch.equal(trained[f"{name}weight"], state[f"backbone.{name}weight"]), (
            "the head trains"
        )


# Merging and reusing


def test_a_merged_model_is_independent_of_the_supernet() -> None:
    """Whatever is done with one of them, the other stays."""
    supernet = filled_supernet()
    subnet = supernet.space.max_subnet()
    images = images_for(supernet.backbone)
    merged = supernet.merge(subnet)
    expected, state = logits(merged, images), copy.deepcopy(supernet.state_dict())
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            tensor.add_(1.0)
    assert torch.equal(logits(merged, images), expected)
    supernet.load_state_dict(state)
    with torch.no_grad():
        for tensor in merged.state_dict().values():
            tensor.add_(1.0)
    assert_same_state(supernet, state)


def test_merging_changes_nothing_of_the_supernet() -> None:
    """Neither weights nor the active subnet nor the mode."""
    supernet = filled_supernet().train()
    active = supernet.space.sample(random.Random(1))
    supernet.set_active_subnet(active)
    state = copy.deepcopy(supernet.state_dict())
    merged = supernet.merge(supernet.space.max_subnet())
    assert_same_state(supernet, state)
    assert supernet.active_subnet == active
    assert supernet.training
    assert not merged.training


@pytest.mark.parametrize("architecture", [DIGITS, VIT_WITHOUT_QKV_BIAS], ids=["ViT", "no bias"])
def test_a_plain_network_keeps_no_trace_of_the_subnet_before(architecture: Architecture) -> None:
    """The evaluator merges thousands of subnets into one network."""
    supernet = filled_supernet(architecture)
    images = images_for(supernet.backbone)
    reused = supernet.plain()
    for subnet in [*subnets_of(supernet.space), None, supernet.space.min_subnet()]:
        supernet.merge_into(reused, subnet)
        fresh = supernet.plain()
        supernet.merge_into(fresh, subnet)
        assert_same_state(reused, fresh.state_dict())
        supernet.set_active_subnet(subnet)
        torch.testing.assert_close(
            logits(reused, images), logits(supernet, images), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("architecture", [DIGITS, VIT_WITHOUT_QKV_BIAS], ids=["ViT", "no bias"])
def test_merging_only_what_differs_leaves_the_same_network(architecture: Architecture) -> None:
    """Whatever the subnet before it was: another one, one that differs in a layer, the same."""
    supernet = filled_supernet(architecture)
    reused = supernet.plain()
    largest, *others = subnets_of(supernet.space)
    near = changed(largest, "blocks.1.mlp.fc1", A="none", B="none", C="none", D="none", E="none")
    held = None
    for subnet in [largest, near, largest, largest, *others, near]:
        supernet.merge_into(reused, subnet, held=held)
        fresh = supernet.plain()
        supernet.merge_into(fresh, subnet)
        assert_same_state(reused, fresh.state_dict())
        held = subnet


def test_layers_configured_alike_are_not_merged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet = filled_supernet()
    merged: list[GLoRALinear] = []
    whole = GLoRALinear.merged_tensors

    def recording(layer: GLoRALinear, *args: Any, **kwargs: Any) -> Any:
        merged.append(layer)
        return whole(layer, *args, **kwargs)

    monkeypatch.setattr(GLoRALinear, "merged_tensors", recording)
    plain, before = supernet.plain(), supernet.space.max_subnet()
    supernet.merge_into(plain, before)
    merged.clear()
    now = changed(before, "blocks.1.mlp.fc1", A="none")
    supernet.merge_into(plain, now, held=before)
    assert merged == [supernet.layers["blocks.1.mlp.fc1"]]


@families
def test_a_plain_network_in_bf16_computes_what_autocast_makes_of_float32(family: str) -> None:
    """Bit for bit: the merge is in float32 either way, and the cast happens once, not in each
    forward.
    """
    supernet = filled_supernet(FAMILIES[family])
    images = images_for(supernet.backbone)
    subnet = supernet.space.sample(random.Random(5))
    full, half = supernet.plain(), supernet.plain(dtype=torch.bfloat16)
    results = []
    for plain in (full, half):
        supernet.merge_into(plain, subnet)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results.append(logits(plain, images))
    assert torch.equal(*results)
    names = supernet.layers
    assert {half.get_submodule(name).weight.dtype for name in names} == {torch.bfloat16}
    assert all(half.get_parameter(n) is p for n, p in full.named_parameters() if "head" in n)


def test_a_plain_network_shares_what_no_subnet_changes() -> None:
    """So a worker holds the backbone's embeddings once, and the head is always the current one."""
    supernet = filled_supernet()
    plain = supernet.plain()
    assert plain.pos_embed is supernet.backbone.pos_embed
    assert plain.head.weight is supernet.backbone.head.weight
    assert not set(map(id, _linears(plain))) & set(map(id, _linears(supernet.backbone)))


def _linears(model: nn.Module) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if ".qkv." in name or ".fc" in name]


def test_the_head_belongs_to_every_subnet() -> None:
    """A new head shows in the unmerged, the reused and the merged network of any subnet."""
    supernet = filled_supernet()
    plain = supernet.plain()
    images = images_for(supernet.backbone)
    with torch.no_grad():
        supernet.backbone.head.weight.zero_()
        supernet.backbone.head.bias.copy_(torch.arange(5.0))
    expected = torch.arange(5.0).expand(3, 5)
    for subnet in subnets_of(supernet.space):
        supernet.set_active_subnet(subnet)
        supernet.merge_into(plain, subnet)
        for model in (supernet, plain, supernet.merge(subnet)):
            assert torch.equal(logits(model, images), expected)
    assert supernet.head_state().keys() == {"head.weight", "head.bias"}


def test_a_distilled_model_has_two_heads() -> None:
    supernet = filled_supernet(FAMILIES["DeiT, distilled"])
    assert supernet.head_names == ["head", "head_dist"]
    assert len(supernet.head_state()) == 4


def test_layers_without_bias_keep_none_unless_one_is_given() -> None:
    """Zero biases would make a state dict that timm's own model does not take."""
    supernet = filled_supernet(VIT_WITHOUT_QKV_BIAS)
    first, second = "blocks.0.attn.qkv", "blocks.1.attn.qkv"
    nothing = supernet.space.min_subnet()
    assert supernet.merge(nothing).get_submodule(first).bias is None
    merged = supernet.merge(changed(nothing, first, E="vector"))
    assert torch.equal(merged.get_submodule(first).bias, supernet.layers[first].E)
    assert not merged.get_submodule(second).bias.any()


# The active subnet and the state


def test_a_foreign_subnet_leaves_the_old_one() -> None:
    supernet = filled_supernet()
    mine = supernet.space.sample(random.Random(0))
    supernet.set_active_subnet(mine)
    images = images_for(supernet.backbone)
    before = logits(supernet, images)
    (name, *_) = supernet.layers
    too_large = changed(mine, name, A="lora_8")
    missing = SubnetConfig({k: v for k, v in mine.layers.items() if k != name})
    for foreign, told in ((too_large, f"{name}.A is 'lora_8'"), (missing, f"'{name}' is missing")):
        with pytest.raises(InvalidConfigError, match=told):
            supernet.set_active_subnet(foreign)
        with pytest.raises(InvalidConfigError, match=told):
            supernet.merge(foreign)
    assert supernet.active_subnet == mine
    assert torch.equal(logits(supernet, images), before)


def test_the_trainable_state_makes_an_equal_supernet() -> None:
    """What is stored in a checkpoint is all that training changed."""
    trained, other = filled_supernet(), supernet_of()
    state = {name: tensor.clone() for name, tensor in trained.trainable_state().items()}
    other.load_trainable_state(state)
    subnet = trained.space.max_subnet()
    images = images_for(trained.backbone)
    for supernet in (trained, other):
        supernet.set_active_subnet(subnet)
    assert torch.equal(logits(other, images), logits(trained, images))
    assert not any(tensor.requires_grad for tensor in trained.trainable_state().values())


@pytest.mark.parametrize("fault", ["missing", "foreign", "shape"])
def test_a_foreign_state_is_refused_and_nothing_changed(fault: str) -> None:
    supernet = filled_supernet()
    state = {name: torch.zeros_like(t) for name, t in supernet.trainable_state().items()}
    name = sorted(state)[-1]
    if fault == "missing":
        del state[name]
    elif fault == "foreign":
        state[name := f"{name}.more"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(1)  # would broadcast
    before = copy.deepcopy(supernet.state_dict())
    with pytest.raises(CheckpointError, match=f"1 tensors differ, such as '{name}'"):
        supernet.load_trainable_state(state)
    assert_same_state(supernet, before)


def test_the_seed_decides_the_initial_support_tensors() -> None:
    """Two processes that launch the same study must begin with the same supernet."""
    backbone = backbone_of(DIGITS)
    space = space_of(backbone, DIGITS)
    before = torch.get_rng_state()
    first = Supernet(copy.deepcopy(backbone), space, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    assert_same_state(Supernet(copy.deepcopy(backbone), space, seed=1), first.state_dict())
    other = Supernet(copy.deepcopy(backbone), space, seed=2)
    assert not torch.equal(
        other.layers["blocks.0.attn.qkv"].A_up, first.layers["blocks.0.attn.qkv"].A_up
    )
    ups = [layer.A_up for layer in first.layers.values() if layer.in_features == 16]
    assert not torch.equal(ups[0], ups[1]), "layers are not copies of each other"


# What cannot be adapted


class ComputesWithWeights(nn.Module):
    """A timm-like model around PyTorch's attention, which never calls its `out_proj`."""

    pretrained_cfg = {"input_size": (3, 4, 4)}  # noqa: RUF012 - as timm's models have it

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.permute(0, 2, 3, 1).flatten(2))  # (b, 4, 8)
        return self.head(self.attn(tokens, tokens, tokens)[0].mean(1))


def test_a_layer_that_the_backbone_never_calls_is_refused() -> None:
    """Its support tensors would train on nothing, and merge into something untested."""
    model = ComputesWithWeights()
    space = space_of(model, None, ["embed", "attn.out_proj"])
    callable_alone = space_of(model, None, ["embed"])
    with pytest.raises(BackboneError, match=r"never calls 'attn\.out_proj'.*other patterns"):
        Supernet(model, space)
    assert Supernet(ComputesWithWeights(), callable_alone).layers.keys() == {"embed"}


def spec(name: str = "blocks.0.attn.qkv", **changes: Any) -> LayerSpec:
    shape = {"in_features": 16, "out_features": 48, "bias": True}
    return LayerSpec(name, **{**shape, **changes})


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (spec("blocks.7.attn.qkv"), "no layer 'blocks.7.attn.qkv'"),
        (spec("blocks.0.norm1"), "'blocks.0.norm1' is LayerNorm, not a linear layer"),
        (spec(in_features=17), "in_features=17"),
        (spec(out_features=47), "out_features=47"),
        (spec(bias=False), "bias=False"),
    ],
)
def test_a_space_over_another_backbone_is_refused(layer: LayerSpec, told: str) -> None:
    with pytest.raises(BackboneError, match=told):
        Supernet(backbone_of(DIGITS), SearchSpace([layer], {s: ["none"] for s in "ABCDE"}))


def test_building_a_supernet_leaves_the_mode_of_the_backbone() -> None:
    """The check that every layer is called runs in evaluation mode and puts the mode back."""
    backbone = backbone_of(DIGITS).train()
    Supernet(backbone, space_of(backbone, DIGITS))
    assert backbone.training
    assert all(module.training for module in backbone.modules())


def test_a_supernet_with_drop_path_is_deterministic_only_in_evaluation_mode() -> None:
    """Drop path acts in training, and a merged model has none of it left to act."""
    supernet = supernet_of(drop_path=0.5)
    fill_support_tensors(supernet)
    images = images_for(supernet.backbone, 8)
    assert torch.equal(logits(supernet, images), logits(supernet, images))
    supernet.train()
    assert not torch.equal(logits(supernet, images), logits(supernet, images))
    merged = supernet.merge(supernet.space.max_subnet())
    assert torch.equal(logits(merged, images), logits(merged, images))
