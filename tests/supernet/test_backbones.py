"""Backbones: which layers match, and what loads from which file."""

from __future__ import annotations

import logging
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from small_networks import (
    DEIT,
    EVA,
    FAMILIES,
    SWIN,
    VIT,
    VIT_WITHOUT_QKV_BIAS,
    backbone_of,
    each_of,
    images_for,
)
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from supernet import DEFAULT_PATTERNS, Architecture, find_layers
from supernet.backbones import head_names, input_size, load_checkpoint, load_pretrained
from supernet.errors import BackboneError


def with_args(architecture: Architecture, **args: Any) -> Architecture:
    return replace(architecture, args={**architecture.args, **args})


def body(model: nn.Module) -> dict[str, Tensor]:
    """All tensors but the classifier head's."""
    heads = tuple(f"{name}." for name in head_names(model))
    return {n: t for n, t in model.state_dict().items() if not n.startswith(heads)}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert first
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# Which layers

EXPECTED_LEAVES = {
    "ViT": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
    "ViT with attention pooling": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
    "DeiT, distilled": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
    "EVA": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
    "EVA-02": {f"attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "proj")}
    | {"mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"},
    "Swin": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
}


@each_of(EXPECTED_LEAVES)
def test_the_default_finds_all_projections_of_every_block(family: str) -> None:
    """And nothing else: no head, no attention pooling, no embedding, no downsampling."""
    architecture = FAMILIES[family]
    model = architecture.build()
    found = [layer.name for layer in find_layers(model)]
    blocks = sum(architecture.args.get("depths", (architecture.args.get("depth"),)))
    leaves = EXPECTED_LEAVES[family]
    assert len(found) == blocks * len(leaves)
    assert {".".join(name.split(".")[-2:]) for name in found} == leaves
    assert all(".blocks." in f".{name}" for name in found)
    in_order = [name for name, _ in model.named_modules() if name in set(found)]
    assert found == in_order


def test_a_layer_is_described_as_it_is() -> None:
    layers = {layer.name: layer for layer in find_layers(VIT.build())}
    qkv = layers["blocks.1.attn.qkv"]
    assert (qkv.in_features, qkv.out_features, qkv.bias) == (24, 72, True)


def test_the_head_is_never_adapted_whatever_the_pattern() -> None:
    for architecture in (VIT, DEIT, SWIN):
        model = architecture.build()
        names = {layer.name for layer in find_layers(model, ["*"])}
        assert names
        assert not any(name.startswith("head") for name in names)


def test_patterns_choose() -> None:
    names = [layer.name for layer in find_layers(VIT.build(), ["blocks.1.*", "*.0.mlp.fc[12]"])]
    assert names == [
        *(f"blocks.0.mlp.{n}" for n in ("fc1", "fc2")),
        *(f"blocks.1.{n}" for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    ]


@pytest.mark.parametrize("patterns", [["*.qkv", "*.fc3", "head"], ["nothing"]])
def test_a_pattern_that_matches_nothing_is_one_clear_error(patterns: list[str]) -> None:
    """A misspelt one beside a good one too: it would silently adapt half of what was meant."""
    with pytest.raises(BackboneError) as caught:
        find_layers(VIT.build(), patterns)
    message = str(caught.value)
    assert all((repr(p) in message) == (p != "*.qkv") for p in patterns)
    assert "blocks.0.attn.qkv" in message, "it says what there is"
    assert "\n" not in message


def test_no_patterns_and_no_transformer_are_errors() -> None:
    with pytest.raises(BackboneError, match="no patterns"):
        find_layers(VIT.build(), [])
    with pytest.raises(BackboneError, match="match no linear layer"):
        find_layers(Architecture("resnet10t", 2).build(), DEFAULT_PATTERNS)


def test_a_backbone_without_head_is_an_error() -> None:
    with pytest.raises(BackboneError, match="num_classes > 0"):
        find_layers(replace(VIT, num_classes=0).build())


def test_only_what_timm_can_build_may_get_a_bias() -> None:
    """EVA's qkv keeps its bias beside the layer, so an added one would be ignored."""
    for architecture, addable in ((VIT_WITHOUT_QKV_BIAS, True), (EVA, False)):
        model = architecture.build()
        layers = {s.name: s for s in find_layers(model, architecture=architecture)}
        qkv, proj = layers["blocks.0.attn.qkv"], layers["blocks.0.attn.proj"]
        assert (qkv.bias, qkv.can_add_bias) == (False, addable)
        assert (proj.bias, proj.can_add_bias) == (True, True)
        alone = {s.name: s for s in find_layers(model)}
        assert not alone["blocks.0.attn.qkv"].can_add_bias, "unknown without the architecture"


# Building


def test_the_seed_alone_decides_random_weights() -> None:
    before = torch.get_rng_state()
    first = VIT.build(seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(5)
    assert_same(first, VIT.build(seed=1).state_dict())
    assert not torch.equal(first["head.weight"], VIT.build(seed=2).state_dict()["head.weight"])


def test_drop_path_grows_linearly() -> None:
    rates = [block.drop_path1 for block in with_args(VIT, depth=3).build(drop_path=0.4).blocks]
    assert [getattr(rate, "drop_prob", 0.0) for rate in rates] == pytest.approx([0, 0.2, 0.4])


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(
        BackboneError, match=r"no model 'vit_tiny_patch16_22'.*vit_tiny_patch16_224"
    ):
        Architecture("vit_tiny_patch16_22", 5).build()


@pytest.mark.parametrize(
    "args", [{"bogus": 1}, {"act_layer": "bogus"}, {"patch_size": 0}, {"num_heads": 7}]
)
def test_wrong_arguments_are_one_clear_error(args: dict[str, Any]) -> None:
    """Timm checks few of them, and fails in as many ways."""
    with pytest.raises(BackboneError, match="timm cannot build 'vit_tiny_patch16_224': "):
        with_args(VIT, **args).build()


def test_weights_that_cannot_be_fetched_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a network a user is told to give a local file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match=r"cannot be fetched .*give a local file"):
        load_pretrained(Architecture("vit_tiny_patch16_224", 5))


def test_input_size_is_that_of_the_built_network() -> None:
    """Not that of timm's pretraining configuration, which is 3 channels of 224 pixels."""
    assert input_size(with_args(VIT, in_chans=1, img_size=(16, 24)).build()) == (1, 16, 24)
    assert input_size(SWIN.build()) == (3, 32, 32)
    with torch.device("meta"):  # one whose patch embedding does not say what it was made for
        assert input_size(timm.create_model("volo_d1_384", in_chans=1)) == (1, 384, 384)
    assert input_size(torch.nn.Linear(2, 2)) == (3, 224, 224)


# Files


def write_state(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def write_original_vit(path: Path, model: Any, *, pre_logits: bool = False) -> Path:
    """A file as the original ViT release wrote them: JAX's names, q, k and v apart, (in, out)."""
    heads, width = model.blocks[0].attn.num_heads, model.embed_dim
    arrays: dict[str, Tensor] = {
        "cls": model.cls_token,
        "embedding/kernel": model.patch_embed.proj.weight.permute(2, 3, 1, 0),  # (h, w, c, o)
        "embedding/bias": model.patch_embed.proj.bias,
        "Transformer/posembed_input/pos_embedding": model.pos_embed,
        "Transformer/encoder_norm/scale": model.norm.weight,
        "Transformer/encoder_norm/bias": model.norm.bias,
        "head/kernel": model.head.weight.T,
        "head/bias": model.head.bias,
    }
    if pre_logits:
        arrays |= {"pre_logits/kernel": torch.ones(width, width), "pre_logits/bias": torch.ones(3)}
    for number, block in enumerate(model.blocks):
        prefix = f"Transformer/encoderblock_{number}"
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}/{part}/kernel"] = weight.T.reshape(width, heads, -1)
            arrays[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = block.attn.proj.weight.T.reshape(heads, -1, width)
        arrays[f"{attention}/out/bias"] = block.attn.proj.bias
        for name, norm in (("LayerNorm_0", block.norm1), ("LayerNorm_2", block.norm2)):
            arrays |= {f"{prefix}/{name}/scale": norm.weight, f"{prefix}/{name}/bias": norm.bias}
        for name, dense in (("Dense_0", block.mlp.fc1), ("Dense_1", block.mlp.fc2)):
            arrays[f"{prefix}/MlpBlock_3/{name}/kernel"] = dense.weight.T
            arrays[f"{prefix}/MlpBlock_3/{name}/bias"] = dense.bias
    np.savez(path, **{name: tensor.detach().numpy() for name, tensor in arrays.items()})
    return path


def write(path: Path, model: Any) -> Path:
    """`model` in the format that the suffix names."""
    if path.suffix == ".npz":
        return write_original_vit(path, model)
    return write_state(path, model.state_dict())


formats = pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])


@formats
def test_a_local_file_gives_its_weights(suffix: str, tmp_path: Path) -> None:
    """All but the head, which is new; features are those of the model that was saved."""
    saved = backbone_of(VIT)
    path = write(tmp_path / f"weights{suffix}", saved)
    loaded: Any = load_checkpoint(VIT, path, seed=3).eval()
    assert_same(body(loaded), body(saved))
    images = images_for(saved)
    with torch.no_grad():
        assert torch.equal(loaded.forward_features(images), saved.forward_features(images))
    assert not torch.equal(loaded.head.weight, saved.head.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "classes"),
    [(s, n) for s in (".safetensors", ".pth", ".npz") for n in (2, 9, 0) if (s, n) != (".npz", 0)],
)
def test_a_file_may_have_another_number_of_classes(
    suffix: str, classes: int, tmp_path: Path
) -> None:
    """21,843 of ImageNet-21k, or no head at all, as self-supervised models."""
    saved = backbone_of(replace(VIT, num_classes=max(classes, 1)))
    weights = body(saved)
    if not classes:
        saved.reset_classifier(0)
    path = write(tmp_path / f"weights{suffix}", saved)
    first, second = (load_checkpoint(VIT, path, seed=seed) for seed in (1, 2))
    assert_same(body(first), weights)
    with torch.no_grad():
        assert first(images_for(first)).shape == (3, 5)
    assert_same(first.state_dict(), load_checkpoint(VIT, path, seed=1).state_dict())
    assert not torch.equal(first.get_parameter("head.weight"), second.get_parameter("head.weight"))


@each_of(["DeiT, distilled", "EVA", "EVA-02", "Swin", "Swin v2", "BEiT"])
def test_every_family_loads_its_own_file(family: str, tmp_path: Path) -> None:
    architecture = FAMILIES[family]
    saved = backbone_of(replace(architecture, num_classes=7))
    path = write(tmp_path / "weights.safetensors", saved)
    loaded = load_checkpoint(architecture, path)
    assert_same(body(loaded), body(saved))
    with torch.no_grad():
        assert loaded.eval()(images_for(loaded)).shape == (3, 5)


def test_the_original_release_has_a_representation_layer(tmp_path: Path) -> None:
    """ViT-B_16.npz of ImageNet-21k carries `pre_logits`, which timm's models do not have."""
    saved = backbone_of(VIT)
    path = write_original_vit(tmp_path / "ViT.npz", saved, pre_logits=True)
    assert_same(body(load_checkpoint(VIT, path)), body(saved))


@formats
def test_position_embeddings_are_resized(suffix: str, tmp_path: Path) -> None:
    """A backbone of 64 pixels on images of 32: an 8 x 8 grid becomes 4 x 4."""
    saved = backbone_of(with_args(VIT, img_size=64))
    loaded: Any = load_checkpoint(VIT, write(tmp_path / f"weights{suffix}", saved))
    assert loaded.pos_embed.shape == (1, 17, 24)
    expected = {n: t for n, t in body(saved).items() if n != "pos_embed"}
    assert_same({n: t for n, t in body(loaded).items() if n != "pos_embed"}, expected)
    antialias = suffix != ".npz"  # how timm does it for either kind of file
    resized = resample_abs_pos_embed(
        saved.pos_embed,
        new_size=[4, 4],
        interpolation="bicubic" if antialias else "bilinear",
        antialias=antialias,
    )
    torch.testing.assert_close(loaded.pos_embed, resized)


@formats
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_file_fits_a_grey_backbone_without_a_warning(
    suffix: str, channels: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Told wrong channels, timm warns, or adapts a stem that needs no adapting."""
    architecture = with_args(VIT, in_chans=channels)
    saved = backbone_of(architecture)
    path = write(tmp_path / f"weights{suffix}", saved)
    with caplog.at_level(logging.WARNING):
        loaded = load_checkpoint(architecture, path)
    assert not caplog.records
    assert_same(body(loaded), body(saved))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_colour_file_in_a_grey_backbone_sums_the_channels(suffix: str, tmp_path: Path) -> None:
    """What timm does: a grey image then gives what the same image in colour gave."""
    saved = backbone_of(VIT)
    grey = with_args(VIT, in_chans=1)
    loaded: Any = load_checkpoint(grey, write(tmp_path / f"weights{suffix}", saved)).eval()
    images = images_for(loaded)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.forward_features(images), saved.forward_features(images.expand(-1, 3, -1, -1))
        )


# Files that do not fit


def refused(architecture: Architecture, path: Path) -> str:
    """The one line with which the file is refused."""
    with pytest.raises(BackboneError) as caught:
        load_checkpoint(architecture, path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 500
    return message


FOREIGN = {
    "wider": with_args(VIT, embed_dim=48),
    "deeper": with_args(VIT, depth=3),
    "shallower": with_args(VIT, depth=1),
    "with LayerScale": with_args(VIT, init_values=0.1),
    "with registers": with_args(VIT, reg_tokens=2),
}


@pytest.mark.slow
@formats
@pytest.mark.parametrize("other", FOREIGN)
def test_a_file_of_another_vit_is_refused(other: str, suffix: str, tmp_path: Path) -> None:
    """In both directions: no layer may be left with random weights, none left out."""
    mine, theirs = VIT, FOREIGN[other]
    path = write(tmp_path / f"plain{suffix}", backbone_of(mine))
    assert f"does not hold weights of {mine.model!r}" in refused(theirs, path)
    if suffix != ".npz" or other in ("wider", "deeper", "shallower"):
        path = write(tmp_path / f"other{suffix}", backbone_of(theirs))
        refused(mine, path)


@each_of(["DeiT, distilled", "EVA", "BEiT", "Swin"])
def test_a_file_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    other = FAMILIES[family]
    vit = write(tmp_path / "vit.safetensors", backbone_of(VIT))
    foreign = write(tmp_path / "foreign.safetensors", backbone_of(other))
    refused(other, vit)
    refused(VIT, foreign)


@formats
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(suffix: str, part: float, tmp_path: Path) -> None:
    path = write(tmp_path / f"weights{suffix}", backbone_of(VIT))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    refused(VIT, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz", ".bin"])
@pytest.mark.parametrize("content", [b"no weights at all " * 99, b"\x80\x02]", b"PK\x03\x04"])
def test_a_file_of_something_else_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(VIT, path)


@pytest.mark.parametrize("state", [[1, 2], {"weights": 1}, {}], ids=["list", "number", "empty"])
def test_a_pth_of_something_else_is_refused(state: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    refused(VIT, path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "is not a file" in refused(VIT, tmp_path / "weights.pth")
    assert "is not a file" in refused(VIT, tmp_path)


class RunsCode:
    """Unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "npz"])
def test_code_in_a_file_does_not_run(kind: str, tmp_path: Path) -> None:
    """A checkpoint from the internet is data; one that is a program is refused."""
    proof = tmp_path / "it-ran"
    bomb = RunsCode(proof)
    path = tmp_path / ("weights.npz" if kind == "npz" else "weights.pth")
    state = backbone_of(VIT).state_dict()
    if kind == "pickle":
        path.write_bytes(pickle.dumps({**state, "more": bomb}, protocol=2))
    elif kind == "torch":
        torch.save({**state, "more": bomb}, path)
    else:
        np.savez(path, **{"embedding/kernel": np.array([bomb], dtype=object)})
    refused(VIT, path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(bomb))
    assert proof.exists(), "the file could have run"
