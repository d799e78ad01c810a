"""Backbones: timm vision transformers, where their weights come from, and which layers to adapt."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch
from torch import Tensor, nn

from search_spaces import LayerSpec
from supernet.errors import BackboneError

_ATTENTION: Final = ("qkv", "q", "k", "v", "kv", "proj", "q_proj", "k_proj", "v_proj")
_MLP: Final = ("fc1", "fc2", "fc1_g", "fc1_x", "w1", "w2", "w3", "w12")
DEFAULT_PATTERNS: Final = (
    *(f"*blocks.*.attn.{leaf}" for leaf in _ATTENTION),
    *(f"*blocks.*.mlp.{leaf}" for leaf in _MLP),
)
"""The attention and MLP projections of every block, as ViT, DeiT, DINOv2, EVA and Swin name
them.
"""

_WRONG_ARGUMENTS: Final = (
    *(TypeError, ValueError, AssertionError, AttributeError),
    *(LookupError, ArithmeticError, RuntimeError),
)
"""The exceptions that timm raises for a wrong argument; it checks few arguments itself. Errors of
files and of the network connection are of other classes.
"""


@dataclass(frozen=True)
class Architecture:
    """What timm needs to build a network again, without its weights.

    Args:
        model: A timm model name, with or without a tag.
        num_classes: Outputs of the classifier head.
        args: Further keyword arguments of `timm.create_model`, such as img_size.
    """

    model: str
    num_classes: int
    args: Mapping[str, Any] = field(default_factory=dict)

    def build(self, *, drop_path: float = 0.0, seed: int = 0, **timm_args: Any) -> Any:
        """A network with random weights.

        Args:
            drop_path: Stochastic depth rate of the last block, growing linearly from 0.
            seed: Of the random weights; the process's own generator is left as it was.
            timm_args: Passed on to `timm.create_model`.

        Raises:
            BackboneError: timm does not know the model, or refuses the arguments.
        """
        if not timm.is_model(self.model.partition(".")[0]):
            near = difflib.get_close_matches(self.model, timm.list_models(), n=3)
            raise BackboneError(
                f"timm {timm.__version__} has no model {self.model!r}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
            )
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return timm.create_model(
                    self.model,
                    **{
                        "num_classes": self.num_classes,
                        "drop_path_rate": drop_path,
                        **self.args,
                        **timm_args,
                    },
                )
        except _WRONG_ARGUMENTS as error:
            raise BackboneError(f"timm cannot build {self.model!r}: {_one_line(error)}") from error

    def with_added_biases(self) -> Architecture:
        """The same architecture with biases wherever timm's transformers can be built with them."""
        for added in ({"qkv_bias": True, "proj_bias": True}, {"qkv_bias": True}):
            candidate = replace(self, args={**self.args, **added})
            try:
                with torch.device("meta"):
                    candidate.build()
            except BackboneError:
                continue
            return candidate
        return self


def load_pretrained(
    architecture: Architecture, *, drop_path: float = 0.0, seed: int = 0
) -> nn.Module:
    """The network with the weights that timm publishes for it, and a new head.

    Raises:
        BackboneError: No such weights, or they cannot be fetched from here.
    """
    try:
        model: nn.Module = architecture.build(drop_path=drop_path, seed=seed, pretrained=True)
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(
            f"the pretrained weights of {architecture.model!r} cannot be fetched "
            f"({type(error).__name__}: {_one_line(error)}); "
            "give a local file as backbone.checkpoint"
        ) from error
    return model


def load_checkpoint(
    architecture: Architecture, path: Path, *, drop_path: float = 0.0, seed: int = 0
) -> nn.Module:
    """The network with the weights of a local file, and a new head.

    Args:
        architecture: Of the network to build; the file may have another number of classes.
        path: `.safetensors`; `.pth`, `.pt` or `.bin` (read with weights only, so that nothing in it
            runs); or the `.npz` of the original ViT release. Position embeddings are resized by
            timm.
        drop_path: As in `Architecture.build`.
        seed: Of the new head.

    Raises:
        BackboneError: The file is missing, damaged, or holds another network.
    """
    if not path.is_file():
        raise BackboneError(f"backbone.checkpoint {str(path)!r} is not a file")
    try:
        # Told the file's own number of classes, timm loads strictly: a foreign file is an error.
        overlay = _facts_of(path, architecture)
        model: Any = replace(architecture, num_classes=overlay["num_classes"]).build(
            drop_path=drop_path,
            seed=seed,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(path), "label_offset": 0, **overlay},
        )
    except Exception as error:
        # Damaged and foreign files make numpy, zipfile, torch and timm's filters fail in any way.
        raise BackboneError(
            f"{str(path)!r} does not hold weights of {architecture.model!r}: {_one_line(error)}"
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.reset_classifier(architecture.num_classes)
    network: nn.Module = model
    return network


def _facts_of(path: Path, architecture: Architecture) -> dict[str, Any]:
    """What timm's configuration should say of a checkpoint: its classes (0: no head), its
    channels.
    """
    with torch.device("meta"):
        model: Any = replace(architecture, num_classes=1).build()
    config = model.pretrained_cfg
    _, height, width = config["input_size"]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            classes = arrays["head/bias"].shape[0] if "head/bias" in arrays.files else 0
            channels = arrays["embedding/kernel"].shape[2]  # (h, w, c, o)
            _check_original_vit(arrays.files, architecture)
    else:
        state: dict[str, Tensor] = timm.models.load_state_dict(str(path), weights_only=True)
        head = (
            config["classifier"]
            if isinstance(config["classifier"], str)
            else config["classifier"][0]
        )
        classes = len(state[f"{head}.weight"]) if f"{head}.weight" in state else 0
        stem = state.get(f"{config.get('first_conv')}.weight")
        channels = input_size(model)[0] if stem is None else stem.shape[1]
    return {
        "num_classes": int(classes),
        "input_size": (int(channels), height, width),
        "custom_load": path.suffix == ".npz",
    }


def _check_original_vit(names: Sequence[str], architecture: Architecture) -> None:
    """Refuse a file of another ViT; timm would load the arrays that fit and not report the rest."""
    with torch.device("meta"):
        model: Any = replace(architecture, num_classes=0).build()
    found = sum(not name.startswith(("head/", "pre_logits/")) for name in names)
    # The file holds q, k and v apart: six arrays a block where the network has two.
    wanted = sum(1 for _ in model.parameters()) + 4 * len(model.blocks)
    if found != wanted:
        raise BackboneError(f"it has {found} arrays for the {wanted} of this network")


def head_names(model: Any) -> list[str]:
    """The module names of the classifier head (two for distilled models).

    Raises:
        BackboneError: The model has no trainable head.
    """
    heads = model.get_classifier()
    wanted = {id(m) for m in (heads if isinstance(heads, tuple) else (heads,))}
    names = [name for name, module in model.named_modules() if id(module) in wanted]
    if not any(True for name in names for _ in model.get_submodule(name).parameters()):
        raise BackboneError("the backbone has no classifier head; build it with num_classes > 0")
    return names


def input_size(model: Any) -> tuple[int, int, int]:
    """(channels, height, width) of the images that the model was built for.

    From the network itself where it tells it: timm's configuration goes on naming the pretraining's
    size and 3 channels for a model made with `img_size` or `in_chans`. ImageNet's for a model that
    says nothing.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size", (3, 224, 224))
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    first = config.get("first_conv")
    if isinstance(first, str):
        stem = model.get_submodule(first)
    else:
        modules = () if embed is None else embed.modules()
        stem = next((m for m in modules if isinstance(m, nn.Conv2d)), None)
    return getattr(stem, "in_channels", channels), height, width


def find_layers(
    model: nn.Module,
    patterns: Sequence[str] = DEFAULT_PATTERNS,
    *,
    architecture: Architecture | None = None,
) -> list[LayerSpec]:
    """The linear layers whose names match, in the order of the model; never the classifier head.

    Args:
        model: The backbone.
        patterns: Shell patterns over module names; `*` also matches dots.
        architecture: Of the model. With it, a layer without bias may be given one by C and E where
            timm can build the architecture with that bias; without it, none may.

    Raises:
        BackboneError: A pattern, or all of the default ones, match no linear layer.
    """
    heads = head_names(model)
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not any(name == head or name.startswith(f"{head}.") for head in heads)
    }
    chosen = [n for n in linears if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    unmatched = [p for p in patterns if not fnmatch.filter(linears, p)]
    if not patterns:
        raise BackboneError("no patterns are given; name the layers to adapt")
    if not chosen or (unmatched and tuple(patterns) != DEFAULT_PATTERNS):
        raise BackboneError(
            f"patterns {', '.join(map(repr, unmatched))} match no linear layer; "
            f"the backbone has {_abbreviated(linears)}"
        )
    biased = {name for name in chosen if linears[name].bias is not None}
    addable: set[str] = set()
    if architecture is not None and len(biased) < len(chosen):
        with torch.device("meta"):
            keys = set(architecture.with_added_biases().build().state_dict())
        addable = {name for name in chosen if f"{name}.bias" in keys}
    return [
        LayerSpec(
            name=name,
            in_features=linears[name].in_features,
            out_features=linears[name].out_features,
            bias=name in biased,
            can_add_bias=name in biased or name in addable,
        )
        for name in chosen
    ]


def _abbreviated(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (
        f" and {len(listed) - most} more" if len(listed) > most else ""
    )


def _one_line(error: BaseException, most: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}…"
