"""LoRA: a low-rank change of chosen projections (Hu et al. 2021, arXiv 2106.09685).

    h = W0 x + (alpha / r) B A x

A (r, i) starts Kaiming-uniform, B (o, r) at zero. The parameters carry the names of GLoRA's B
support tensor, which this equals for alpha = r: `down` is B (o, r), `up` is A (r, i). Legend: `i`
in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork
from supernet.backbones import DEFAULT_PATTERNS
from supernet.methods.linear_adapter import LinearAdapter, adapt_linears

_DENSE: Final = 16
"""A layer with i * o up to this many times r * (i + o) weights adds B A to W0 before it multiplies:
matrix products with a side of r are slow, and in a layer so small B A costs little. On a CPU, a
training step of a network of width 48 takes 0.4 of the time; ViT-B/16 is far above the limit.
"""


class LoRALinear(LinearAdapter):
    """A frozen linear layer plus a low-rank one.

    Args:
        base: The frozen layer.
        rank: r.
        scale: alpha / r.
        generator: Of the initial A.
    """

    def __init__(
        self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__(base)
        self.scale = scale
        up = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(up, a=math.sqrt(5), generator=generator)
        self.lora_up = nn.Parameter(up.to(base.weight))
        self.lora_down = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        i, o = base.in_features, base.out_features
        self._dense = i * o <= _DENSE * rank * (i + o)

    def forward(self, x: Tensor) -> Tensor:
        """(..., i) -> (..., o)"""
        if self._dense:
            change = self.lora_down @ self.lora_up
            return F.linear(x, torch.add(self.weight, change, alpha=self.scale), self.bias)
        low = F.linear(x, self.lora_up)  # (..., r)
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(low, self.lora_down)

    def merged_tensors(self) -> tuple[Tensor, Tensor | None]:
        """W0 + (alpha / r) B A."""
        change = self.lora_down.double() @ self.lora_up.double()
        return self.weight.double() + self.scale * change, self.bias


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank changes in every layer that matches.

    Args:
        rank: r.
        alpha: The numerator of the scale; None for r, a scale of one.
        patterns: Of the layers that are adapted.
    """

    rank: int = 4
    alpha: float | None = None
    patterns: Sequence[str] = DEFAULT_PATTERNS

    name: ClassVar[str] = "lora"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = "rank"
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone)
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        generator = torch.Generator().manual_seed(seed)
        adapt_linears(
            network,
            self.patterns,
            lambda _, base: LoRALinear(base, self.rank, scale, generator),
        )
        return network
