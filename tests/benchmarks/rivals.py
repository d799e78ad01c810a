"""The two rivals' layers, restated in a few lines, so that all are measured in one process.

Both work on the parameters and the active configuration of a `GLoRALinear`. Legend: `i`
in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import rank_of
from supernet import GLoRALinear, Supernet


class DenseLayer(nn.Module):
    """The published layer: at each forward all five support tensors in dense form, absent ones as
    zeros, and a new weight and bias made of them (GLoRA, arXiv 2306.07967; Arnav0400/ViT-Slim).
    """

    def __init__(self, layer: GLoRALinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(..., i) -> (..., o)"""
        return F.linear(x, *self.weight_and_bias())

    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """W0 + W0 * A + B (o, i) and b0 + b0 * D + E + W0 C (o)."""
        layer = self.layer
        assert layer.config is not None, "a subnet must be active"
        dense = {name: self._dense(name, token) for name, token in layer.config.items()}
        weight = layer.weight + layer.weight * dense["A"] + dense["B"]
        shift = dense["E"] + (layer.weight @ dense["C"]).squeeze(1)
        if layer.bias is None:
            return weight, shift
        return weight, layer.bias + layer.bias * dense["D"] + shift

    def _dense(self, name: str, token: str) -> Tensor:
        layer = self.layer
        zeros = layer.weight.new_zeros
        if token == "none":
            if name in "AB":
                return zeros(layer.out_features, layer.in_features)
            return zeros(layer.in_features, 1) if name == "C" else zeros(1)
        dense = layer.support(name, token)
        return dense if name in "AB" or rank_of(token) or dense.ndim else dense.expand(1)


class PEFTLayer(DenseLayer):
    """PEFT's GLoRA layer: the base, the dense layer above, and their difference added to the base
    (huggingface/peft, tuners/glora/layer.py at 0.21).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., i) -> (..., o)"""
        base = F.linear(x, self.layer.weight, self.layer.bias)
        return base + F.linear(x, *self.weight_and_bias()) - base


def use_rival(supernet: Supernet, rival: type[DenseLayer] | None) -> None:
    """Have `supernet` compute with a rival's layers; None gives it its own back."""
    for name, layer in supernet.layers.items():
        supernet.backbone.set_submodule(name, layer if rival is None else rival(layer))


def check_same_logits(supernet: Supernet, images: Tensor, rival: type[DenseLayer]) -> None:
    """Raise ValueError unless a rival computes what `supernet` computes: only then is it one."""
    with torch.no_grad():
        mine = supernet(images)
        use_rival(supernet, rival)
        theirs = supernet(images)
        use_rival(supernet, None)
    if not torch.allclose(mine, theirs, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{rival.__name__} computes something else: {(mine - theirs).abs().max()}")
