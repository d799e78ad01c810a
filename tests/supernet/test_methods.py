"""One contract over all methods, and what each of them is by its paper."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from small_networks import SWIN, VIT, backbone_of, digits, fill_support_tensors, images_for
from torch import Tensor, nn

from supernet import Architecture, Recipe, train_network
from supernet.adapted_network import AdaptedNetwork
from supernet.errors import BackboneError, CheckpointError, MergeError
from supernet.methods import METHODS, GLoRA, LoRA, Method, VLoRA, sized

VIT_B = Architecture("vit_base_patch16_224", 1000)
NAMES = sorted(METHODS)


def method_of(name: str) -> Method:
    """With its published settings, but without the dropout, which a comparison would not stand."""
    method: Any = METHODS[name]()
    if hasattr(method, "dropout"):
        method = dataclasses.replace(method, dropout=0.0)
    made: Method = method
    return made


def adapted(
    name: str, *, seed: int = 0, filled: bool = True, dtype: torch.dtype = torch.float32
) -> AdaptedNetwork:
    """The small ViT with every trained tensor away from its start."""
    network = method_of(name).adapt(backbone_of(VIT).to(dtype), seed=seed).eval()
    if filled:
        fill_support_tensors(network)
    return network


def test_there_are_methods() -> None:
    assert len(METHODS) >= 13
    assert all(METHODS[name]().name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_untrained_it_is_the_backbone_where_it_says_so(name: str) -> None:
    backbone = backbone_of(VIT)
    images = images_for(backbone)
    with torch.no_grad():
        expected = backbone(images)
        found = adapted(name, filled=False)(images)
    assert torch.equal(found, expected) == METHODS[name]().starts_as_backbone
    assert found.shape == expected.shape


@pytest.mark.parametrize("name", NAMES)
def test_gradients_go_where_they_belong(name: str) -> None:
    """All that is told as trainable gets one, nothing else does."""
    network = adapted(name)
    F.cross_entropy(network(images_for(network.backbone)), torch.tensor([0, 1, 2])).backward()
    trainable = dict(network.trainable_parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable.values())
    others = [p for p in network.parameters() if not any(p is t for t in trainable.values())]
    assert all(not p.requires_grad and p.grad is None for p in others)
    assert any(key.startswith("head.") for key in trainable)


@pytest.mark.parametrize("name", NAMES)
def test_training_changes_what_is_trainable_and_nothing_else(name: str) -> None:
    train, _ = digits()
    arguments = {"img_size": 8, "patch_size": 4, "in_chans": 1}
    architecture = dataclasses.replace(VIT, args={**VIT.args, **arguments})
    network = method_of(name).adapt(backbone_of(architecture))
    fill_support_tensors(network, scale=0.05)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainable = {f"backbone.{key}" for key, _ in network.trainable_parameters()}
    train_network(network, train, Recipe(epochs=2, lr=1e-2, warmup_epochs=0), seed=0)
    after = network.state_dict()
    same = {id(p): key for key, p in network.named_parameters()}  # shared tensors have one name
    names = {key: same[id(p)] for key, p in network.named_parameters(remove_duplicate=False)}
    for key, value in before.items():
        assert torch.equal(after[key], value) == (names.get(key, key) not in trainable), key


@pytest.mark.parametrize("name", NAMES)
def test_merged_it_computes_the_same(name: str) -> None:
    """With weights away from zero, on a network of the backbone's own names and shapes."""
    network = adapted(name, dtype=torch.float64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    if not METHODS[name]().merges:
        with pytest.raises(MergeError, match="does not merge"):
            network.merge()
        return
    merged = network.merge()
    images = images_for(network.backbone)
    with torch.no_grad():
        assert torch.allclose(merged(images), network(images), atol=1e-9)
        assert not torch.allclose(merged(images), backbone_of(VIT).double()(images), atol=1e-2)
    shapes = {key: value.shape for key, value in merged.state_dict().items()}
    assert shapes == {key: value.shape for key, value in VIT.build().state_dict().items()}
    assert not any(p.requires_grad for p in merged.parameters())
    merged.get_parameter("head.weight").zero_()
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_what_was_trained_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    network = adapted(name)
    state = {key: value.contiguous() for key, value in network.trainable_state().items()}
    save_file(state, tmp_path / "adapter.safetensors")
    if METHODS[name]().from_scratch:
        return  # another start has other weights that are shared and do not train anew
    other = adapted(name, seed=7, filled=False)
    images = images_for(network.backbone)
    with torch.no_grad():
        assert not torch.equal(other(images), network(images))
        other.load_trainable_state(load_file(tmp_path / "adapter.safetensors"))
        assert torch.equal(other(images), network(images))
    with pytest.raises(CheckpointError, match="1 tensors differ"):
        other.load_trainable_state({k: v for k, v in state.items() if k != "head.bias"})


@pytest.mark.parametrize("name", NAMES)
def test_detached_it_gives_the_backbone_back(name: str) -> None:
    """Bit for bit, head included, with the module tree of before."""
    backbone = backbone_of(VIT)
    tree = {key: type(module) for key, module in backbone.named_modules()}
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    network = method_of(name).adapt(backbone)
    fill_support_tensors(network)
    returned = network.detach()
    assert returned is backbone
    assert {key: type(module) for key, module in backbone.named_modules()} == tree
    after = backbone.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_start(name: str) -> None:
    def start(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(torch.seed())
        return dict(adapted(name, seed=seed, filled=False).trainable_state())

    one, same, other = start(1), start(1), start(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    random = not all(torch.equal(one[key], other[key]) for key in one)
    assert random == (name not in ("linear", "full", "bitfit", "scratch"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if METHODS[n]().size])
def test_a_size_is_found_for_a_number_of_parameters(name: str) -> None:
    backbone, method = backbone_of(VIT), method_of(name)
    target = 3 * method.adapt(copy.deepcopy(backbone)).n_params
    found = sized(method, backbone, target)
    field = method.size
    assert field
    size = getattr(found, field)
    counts = {
        s: dataclasses.replace(found, **{field: s}).adapt(copy.deepcopy(backbone)).n_params  # type: ignore[type-var]
        for s in (size - 1, size, size + 1)
        if s >= method.smallest
    }
    assert min(counts, key=lambda s: abs(counts[s] - target)) == size


def test_the_smallest_size_is_taken_where_even_that_is_too_large() -> None:
    found: Any = sized(LoRA(rank=8), backbone_of(VIT), 1)
    assert found.rank == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"),
    [  # of ViT-B/16, as the papers give them or their formulas come to
        ("linear", 0.0),
        ("full", 85.8),
        ("bitfit", 0.10),
        ("lora", 0.59),  # rank 4 in all four projections
        ("ssf", 0.21),
        ("fact-tt", 0.06),
        ("fact-tk", 0.03),
        ("repadapter", 0.24),
        ("vpt-shallow", 0.01),
        ("vpt-deep", 0.09),
        ("adaptformer", 1.19),
    ],
)
def test_parameters_of_vit_b(name: str, millions: float) -> None:
    with torch.device("meta"):
        backbone = VIT_B.build()
    network = METHODS[name]().adapt(backbone)
    assert round(network.n_params / 1e6, 2 if millions < 10 else 1) == millions


# LoRA


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_is_gloras_b(rank: int) -> None:
    """Outputs and gradients of `B = lora_r`, all other support tensors none."""
    lora = LoRA(rank=rank).adapt(backbone_of(VIT))
    nothing = dict.fromkeys("ACDE", ("none",))
    glora = GLoRA(choices={**nothing, "B": (f"lora_{rank}",)}).adapt(backbone_of(VIT))
    fill_support_tensors(lora)
    ours = dict(lora.trainable_parameters())
    theirs = {k: p for k, p in glora.trainable_parameters() if ".B_" in k or k in ours}
    pairs = {key: key.replace(".B_", ".lora_") for key in theirs}
    with torch.no_grad():
        for key, parameter in theirs.items():
            parameter.copy_(ours[pairs[key]])
    images, labels = images_for(lora.backbone), torch.tensor([0, 1, 2])
    outputs = []
    for network in (lora, glora):
        logits = network.eval()(images)
        F.cross_entropy(logits, labels).backward()
        outputs.append(logits)
    assert torch.allclose(*outputs, atol=1e-6)
    for key, parameter in theirs.items():
        expected = ours[pairs[key]].grad
        assert expected is not None
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, expected, atol=1e-6), key


@pytest.mark.slow
def test_lora_is_pefts() -> None:
    from peft import LoraConfig, get_peft_model  # slow: not for every process that collects

    config = LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=["qkv", "proj", "fc1", "fc2"],
        exclude_modules=["patch_embed.proj"],
    )
    theirs = get_peft_model(backbone_of(VIT), config).eval()
    ours = LoRA(rank=3, alpha=6).adapt(backbone_of(VIT)).eval()
    fill_support_tensors(ours)
    mine = dict(ours.trainable_parameters())
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            if "lora_" not in key:
                continue
            layer = key.removeprefix("base_model.model.").partition(".lora_")[0]
            parameter.copy_(mine[f"{layer}.lora_{'up' if 'lora_A' in key else 'down'}"])
        head = theirs.base_model.model.head
        head.weight.copy_(mine["head.weight"])
        head.bias.copy_(mine["head.bias"])
        images = images_for(ours.backbone)
        assert torch.allclose(theirs(images), ours(images), atol=1e-5)


# Methods that do not merge, written out once more


def test_adaptformer_adds_a_bottleneck_to_every_mlp() -> None:
    network = adapted("adaptformer")
    mlp = network.backbone.get_submodule("blocks.1.mlp")
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    down, up = mlp.adapter_down, mlp.adapter_up
    hidden = torch.relu(x @ down.T + mlp.adapter_down_bias)
    expected = mlp.base(x) + 0.1 * (hidden @ up.T + mlp.adapter_up_bias)
    assert torch.allclose(mlp(x), expected, atol=1e-6)


@pytest.mark.parametrize("deep", [True, False])
def test_prompts_enter_behind_the_class_token_and_leave_at_the_end(deep: bool) -> None:
    network = adapted("vpt-deep" if deep else "vpt-shallow")
    plain, images = backbone_of(VIT), images_for(network.backbone)
    plain.head.load_state_dict(network.backbone.get_submodule("head").state_dict())
    state = network.backbone.state_dict()
    x = plain._pos_embed(plain.patch_embed(images))  # (b, 1 + n, d)
    for number, block in enumerate(plain.blocks):
        if deep or number == 0:
            prompt = state[f"blocks.{number}.prompt"].expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], prompt, x[:, 1 if number == 0 else 11 :]], dim=1)
        x = block(x)
    assert x.shape[1] == 1 + 10 + 16
    with torch.no_grad():
        assert torch.allclose(network(images), plain.head(plain.norm(x)[:, 0]), atol=1e-5)


# VLoRA


def test_vlora_shrinks_vit_b_as_its_paper_counts() -> None:
    with torch.device("meta"):
        backbone = VIT_B.build()
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == 86.57
    network = VLoRA().adapt(backbone)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 23.75
    merged = sum(p.numel() for p in network.merge().parameters())
    assert round(merged / 1e6, 2) == 86.57


@pytest.mark.parametrize("chained", [True, False])
def test_vloras_weights_are_the_papers_sums(chained: bool) -> None:
    depth = {**VIT.args, "depth": 6}
    backbone = backbone_of(dataclasses.replace(VIT, args=depth))
    network = VLoRA(compound=3, rank=2, alpha=4.0, chained=chained).adapt(backbone)
    fill_support_tensors(network)
    state, merged = network.backbone.state_dict(), network.merge().state_dict()
    for block in range(6):
        first = block - block % 3
        expected = state[f"blocks.{first}.mlp.fc1.weight"]
        for k in range(first + 1, block + 1):
            if chained or k == block:
                name = f"blocks.{k}.mlp.fc1"
                expected = expected + 2 * state[f"{name}.lora_down"] @ state[f"{name}.lora_up"]
        assert torch.allclose(merged[f"blocks.{block}.mlp.fc1.weight"], expected, atol=1e-5)


def test_hung_increments_give_the_base_no_gradient() -> None:
    def gradient(chained: bool) -> Tensor:
        network = VLoRA(compound=2, chained=chained).adapt(backbone_of(VIT))
        fill_support_tensors(network)
        base = network.backbone.get_submodule("blocks.0.attn.qkv")
        later = network.backbone.get_submodule("blocks.1.attn.qkv")
        assert isinstance(base, nn.Linear)
        later(torch.ones(1, base.in_features)).sum().backward()
        found = base.weight.grad
        return torch.zeros(1) if found is None else found

    assert gradient(chained=True).abs().sum() > 0
    assert gradient(chained=False).abs().sum() == 0


# What does not fit


@pytest.mark.parametrize("name", ["vpt-deep", "vlora", "ssf"])
def test_a_backbone_that_a_method_cannot_adapt_is_refused(name: str) -> None:
    with pytest.raises(BackboneError):
        METHODS[name]().adapt(backbone_of(SWIN))
