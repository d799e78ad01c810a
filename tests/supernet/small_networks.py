"""Networks and splits that are real and small: timm's own architectures, scikit-learn's digits."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces import SearchSpace, SubnetConfig
from supernet import Architecture, Preprocessing, Split, Storage, Supernet, find_layers
from supernet.backbones import DEFAULT_PATTERNS, input_size
from supernet.data import DigitsSource, load_search_splits

CHOICES: Mapping[str, Sequence[str]] = {
    "A": ("lora_2", "lora_4", "vector", "constant", "none"),
    "B": ("lora_2", "lora_4", "vector", "constant", "none"),
    "C": ("lora_2", "vector", "none"),
    "D": ("vector", "constant", "none"),
    "E": ("vector", "constant", "none"),
}
CLASSES = 5
_SIZE: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2}
_VIT = {"img_size": 32, "patch_size": 8, **_SIZE}
_SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 2)}
VIT = Architecture("vit_tiny_patch16_224", CLASSES, _VIT)
VIT_WITHOUT_QKV_BIAS = Architecture("vit_tiny_patch16_224", CLASSES, {**_VIT, "qkv_bias": False})
SWIN = Architecture("swin_tiny_patch4_window7_224", CLASSES, _SWIN)
DEIT = Architecture("deit_tiny_distilled_patch16_224", CLASSES, _VIT)
EVA = Architecture("eva_giant_patch14_224", CLASSES, {"img_size": 28, **_SIZE})
FAMILIES: Mapping[str, Architecture] = {
    "ViT": VIT,
    "ViT without qkv bias": VIT_WITHOUT_QKV_BIAS,
    "ViT with attention pooling": Architecture("vit_base_patch16_siglip_224", CLASSES, _VIT),
    "DeiT, distilled": DEIT,
    "DINOv2 with registers": Architecture(
        "vit_small_patch14_reg4_dinov2", CLASSES, {"img_size": 28, **_SIZE}
    ),
    "EVA": EVA,
    "EVA-02": Architecture("eva02_base_patch14_448", CLASSES, {"img_size": 28, **_SIZE}),
    "BEiT": Architecture("beit_base_patch16_224", CLASSES, {"img_size": 32, **_SIZE}),
    "Swin": SWIN,
    "Swin v2": Architecture("swinv2_tiny_window8_256", CLASSES, _SWIN),
}
INNER_LOOP = ("ViT", "Swin", "digits")
DIGITS = Architecture(
    "vit_tiny_patch16_224",
    CLASSES,
    {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2},
)


def each_of(
    families: Iterable[str] = FAMILIES, *, argument: str = "family"
) -> pytest.MarkDecorator:
    """A test for each of these networks, of which `make test-fast` runs those of INNER_LOOP."""
    return pytest.mark.parametrize(
        argument,
        [pytest.param(f, marks=() if f in INNER_LOOP else pytest.mark.slow) for f in families],
    )


def backbone_of(architecture: Architecture, *, seed: int = 0, drop_path: float = 0.0) -> Any:
    """A network in which every parameter matters: no zeros, no LayerScale of 1e-5."""
    model = architecture.build(drop_path=drop_path)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            if "gamma" in name or ("norm" in name and name.endswith("weight")):
                parameter.add_(1)
    return model.eval()


def space_of(
    model: nn.Module,
    architecture: Architecture | None,
    patterns: Sequence[str] = DEFAULT_PATTERNS,
    **choices: Sequence[str],
) -> SearchSpace:
    """The mixed-rank space over the layers that match."""
    layers = find_layers(model, patterns, architecture=architecture)
    return SearchSpace(layers, {**CHOICES, **choices})


def supernet_of(
    architecture: Architecture = DIGITS,
    *,
    seed: int = 0,
    storage: Storage = "entangled",
    drop_path: float = 0.0,
) -> Supernet:
    """An untrained supernet over a random backbone, in evaluation mode."""
    model = backbone_of(architecture, seed=seed, drop_path=drop_path)
    return Supernet(model, space_of(model, architecture), storage=storage, seed=seed).eval()


def fill_support_tensors(supernet: nn.Module, *, seed: int = 1, scale: float = 0.2) -> None:
    """Random values in every trainable tensor: what a merge of zeros would hide shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in supernet.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(scale * noise)


def filled_supernet(architecture: Architecture = DIGITS, **how: Any) -> Supernet:
    """A supernet as training might leave it."""
    supernet = supernet_of(architecture, **how)
    fill_support_tensors(supernet)
    return supernet


def subnets_of(space: SearchSpace, count: int = 3) -> list[SubnetConfig]:
    """The largest, the smallest, and `count` random ones."""
    random_ones = [space.sample(random.Random(k)) for k in range(count)]
    return [space.max_subnet(), space.min_subnet(), *random_ones]


def images_for(model: nn.Module, n: int = 3) -> Tensor:
    """Random images (n, c, h, w) of the model's size and type."""
    generator = torch.Generator().manual_seed(n)
    return torch.randn((n, *input_size(model)), generator=generator).to(
        next(model.parameters()).dtype
    )


@functools.cache
def digits() -> tuple[Split, Split]:
    """Train (40 images) and val (50) of the digits 5 to 9."""
    preprocessing = Preprocessing.from_model(DIGITS.build())
    return load_search_splits(DigitsSource(n_train=40, n_val=50), preprocessing)
