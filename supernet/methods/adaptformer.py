"""AdaptFormer: a bottleneck beside every MLP (Chen et al. 2022, arXiv 2205.13535).

    MLP'(x) = MLP(x) + s (Wu relu(Wd x + bd) + bu)

x is what the MLP sees, the normalised features. Wd starts Kaiming-uniform, the rest at zero. The
ReLU stands between: no plain ViT computes this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork, check_called
from supernet.errors import BackboneError
from supernet.methods.linear_adapter import matching_modules

_PATTERNS: Final = ("*blocks.*.mlp",)


class ParallelAdapter(nn.Module):
    """An MLP and a bottleneck, added up.

    Args:
        base: The MLP, from `width` to `width` features.
        width: d.
        hidden: Features of the bottleneck.
        scale: s.
        dropout: Behind the ReLU, in training.
        generator: Of the initial Wd.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        width: int,
        hidden: int,
        scale: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.base, self.scale, self.dropout = base, scale, dropout
        like = next(base.parameters())
        down = torch.empty(hidden, width)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.adapter_down = nn.Parameter(down.to(like))
        self.adapter_down_bias = nn.Parameter(like.new_zeros(hidden))
        self.adapter_up = nn.Parameter(like.new_zeros(width, hidden))
        self.adapter_up_bias = nn.Parameter(like.new_zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)"""
        z = F.relu(F.linear(x, self.adapter_down, self.adapter_down_bias))  # (..., hidden)
        z = F.dropout(z, self.dropout, self.training)
        mlp: Tensor = self.base(x)
        return mlp + self.scale * F.linear(z, self.adapter_up, self.adapter_up_bias)


@dataclass(frozen=True, kw_only=True)
class AdaptFormer:
    """A bottleneck beside the MLP of every block.

    Args:
        hidden: Features of the bottleneck.
        scale: s.
        dropout: Behind the ReLU, in training.
    """

    hidden: int = 64
    scale: float = 0.1
    dropout: float = 0.1

    name: ClassVar[str] = "adaptformer"
    merges: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = "hidden"
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone, merges=self.merges)
        generator = torch.Generator().manual_seed(seed)
        found = matching_modules(backbone, _PATTERNS)
        check_called(backbone, found)
        for name, mlp in found.items():
            first = next((m for m in mlp.modules() if isinstance(m, nn.Linear)), None)
            if first is None:
                raise BackboneError(f"{name!r} has no linear layer: it is {type(mlp).__name__}")
            network.replace(
                name,
                ParallelAdapter(
                    mlp,
                    width=first.in_features,
                    hidden=self.hidden,
                    scale=self.scale,
                    dropout=self.dropout,
                    generator=generator,
                ),
            )
        return network
