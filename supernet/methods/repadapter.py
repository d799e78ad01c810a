"""RepAdapter: a bottleneck before attention and MLP that merges into the next projection
(Luo et al. 2023, arXiv 2302.08106).

    f(x) = x + s (Wu (Wd x + bd) + bu)          then qkv(f(x)) and fc1(f(x))

Wd (r, i) is dense, Wu (i, r) has k groups: its block g maps r / k inputs to i / k outputs. Wd
starts Xavier-uniform, the rest at zero. Merged: W (I + s Wu Wd), b + s W (Wu bd + bu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork
from supernet.errors import BackboneError
from supernet.methods.linear_adapter import LinearAdapter, adapt_linears

_PATTERNS: Final = ("*blocks.*.attn.qkv", "*blocks.*.mlp.fc1")


class RepAdapterLinear(LinearAdapter):
    """A frozen projection behind a bottleneck with a residual connection.

    Args:
        base: The projection, (o, i).
        rank: r, a multiple of `groups`.
        groups: k.
        scale: s.
        dropout: On the bottleneck, in training.
        generator: Of the initial Wd.
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        rank: int,
        groups: int,
        scale: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(base)
        i = base.in_features
        self.scale, self.dropout = scale, dropout
        down = torch.empty(rank, i)
        nn.init.xavier_uniform_(down, generator=generator)
        self.rep_down = nn.Parameter(down.to(base.weight))
        self.rep_down_bias = nn.Parameter(base.weight.new_zeros(rank))
        self.rep_up = nn.Parameter(base.weight.new_zeros(groups, i // groups, rank // groups))
        self.rep_up_bias = nn.Parameter(base.weight.new_zeros(i))

    def forward(self, x: Tensor) -> Tensor:
        """(..., i) -> (..., o)"""
        z = F.linear(x, self.rep_down, self.rep_down_bias)  # (..., r)
        z = F.dropout(z, self.dropout, self.training)
        z = z.reshape(*z.shape[:-1], len(self.rep_up), -1)  # (..., k, r / k)
        up = torch.einsum("...kr,kir->...ki", z, self.rep_up).flatten(-2) + self.rep_up_bias
        return F.linear(x + self.scale * up, self.weight, self.bias)

    def merged_tensors(self) -> tuple[Tensor, Tensor | None]:
        """W (I + s Wu Wd) and b + s W (Wu bd + bu)."""
        weight = self.weight.double()
        up = torch.block_diag(*self.rep_up.double())  # type: ignore[no-untyped-call]  # (i, r)
        carried = up @ self.rep_down_bias.double() + self.rep_up_bias.double()
        bias = self.scale * weight @ carried
        if self.bias is not None:
            bias = bias + self.bias.double()
        return weight + self.scale * (weight @ up) @ self.rep_down.double(), bias


@dataclass(frozen=True, kw_only=True)
class RepAdapter:
    """A bottleneck before every fused qkv and every fc1.

    Args:
        group_rank: Hidden channels of a group, r / k; the published 8 channels are 4 in 2 groups.
        groups: k.
        scale: s; the paper chooses it for each task.
        dropout: On the bottleneck, in training.
    """

    group_rank: int = 4
    groups: int = 2
    scale: float = 1.0
    dropout: float = 0.1

    name: ClassVar[str] = "repadapter"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = "group_rank"
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone)
        generator = torch.Generator().manual_seed(seed)

        def make(name: str, base: nn.Linear) -> RepAdapterLinear:
            if base.bias is None or base.in_features % self.groups:
                raise BackboneError(
                    f"{name!r} is {base}; RepAdapter needs projections with a bias, and inputs "
                    f"that {self.groups} groups divide"
                )
            return RepAdapterLinear(
                base,
                rank=self.groups * self.group_rank,
                groups=self.groups,
                scale=self.scale,
                dropout=self.dropout,
                generator=generator,
            )

        adapt_linears(network, _PATTERNS, make)
        return network
