"""SSF: scale and shift the features after every operation (Lian et al. 2022, arXiv 2210.08823).

    y = gamma * x + beta                                                (* per channel)

after every linear layer, LayerNorm and the patch embedding; never after the head. gamma starts at
N(1, 0.02) and beta at N(0, 0.02), as in the published code, so the untrained network is not quite
the backbone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork, check_called
from supernet.errors import BackboneError

_DEVIATION = 0.02


class ScaledAndShifted(nn.Module):
    """A frozen linear layer, LayerNorm or convolution, and a scale and a shift of its channels.

    Args:
        base: The frozen module.
        generator: Of the initial values.
    """

    def __init__(self, base: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        weight = base.get_parameter("weight")
        channels = weight.shape[0]  # of linear (o, i), LayerNorm (d) and convolution (o, i, h, w)
        noise = torch.randn(2, channels, generator=generator)
        self.scale = nn.Parameter((1 + _DEVIATION * noise[0]).to(weight))
        self.shift = nn.Parameter((_DEVIATION * noise[1]).to(weight))

    def forward(self, x: Tensor) -> Tensor:
        """As the base, with its last dimension (of a convolution the second) scaled and shifted."""
        y: Tensor = self.base(x)
        if isinstance(self.base, nn.Conv2d):
            return y * self.scale[:, None, None] + self.shift[:, None, None]
        return y * self.scale + self.shift

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The base with gamma * weight, and gamma * bias + beta."""
        plain = copy.deepcopy(self.base)
        weight, scale = plain.get_parameter("weight"), self.scale.double()
        weight.copy_(weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1)))
        bias = getattr(plain, "bias", None)
        shift = self.shift.double() if bias is None else bias.double() * scale + self.shift.double()
        plain.register_parameter("bias", nn.Parameter(shift.to(weight.dtype)))
        return plain


@dataclass(frozen=True, kw_only=True)
class SSF:
    """A scale and a shift after every linear layer, LayerNorm and the patch embedding."""

    name: ClassVar[str] = "ssf"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = None
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone)
        heads = tuple(f"{name}." for name in network.head_names)
        names = [
            name
            for name, module in backbone.named_modules()
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv2d)
            and not f"{name}.".startswith(heads)
            and getattr(module, "weight", None) is not None
        ]
        unbiased = [
            name for name in names if getattr(backbone.get_submodule(name), "bias", None) is None
        ]
        if unbiased:
            raise BackboneError(
                f"{unbiased[0]!r} of the backbone has no bias, so its shift could not be merged; "
                "SSF needs a backbone with biases"
            )
        check_called(backbone, names)
        generator = torch.Generator().manual_seed(seed)
        for name in names:
            network.replace(name, ScaledAndShifted(backbone.get_submodule(name), generator))
        return network
