"""VLoRA: a smaller transformer, whose blocks are low-rank increments of others (Fu 2024, "Vertical
LoRA", arXiv 2406.09315).

Blocks stand in compounds. The first block of each holds full weights; in every further one each
projection of attention and MLP is

    chained   W_l = W_(l-1) + (alpha / r) B_l A_l        the paper's text
    hung      W_l = sg(W_first) + (alpha / r) B_l A_l    its published code; sg stops the gradient

with A (r, i) and B (o, r), both random at the start. Biases and LayerNorm stay with each block. The
network is trained from scratch; merged, it is a plain ViT of full size. Legend: `i` in_features,
`o` out_features, `r` rank, `k` the block's place in its compound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork, check_called
from supernet.backbones import DEFAULT_PATTERNS, find_layers
from supernet.errors import BackboneError
from supernet.methods.linear_adapter import plain_linear

_PROJECTIONS: Final = DEFAULT_PATTERNS


class IncrementedLinear(nn.Module):
    """A projection whose weight is that of another block plus a low-rank increment.

    Args:
        own: The layer in whose place it stands; only its bias is kept.
        first: The projection of the compound's first block, with full weights.
        before: The increments between `first` and this one, which the weight includes; none where
            it hangs on the first block.
        rank: r.
        scale: alpha / r.
        stop_gradient: Whether `first` gets no gradient from here.
        generator: Of the initial factors.
    """

    def __init__(
        self,
        own: nn.Linear,
        first: nn.Linear,
        before: list[IncrementedLinear],
        *,
        rank: int,
        scale: float,
        stop_gradient: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = own.in_features, own.out_features
        self.bias = own.bias
        # In a tuple: their parameters belong to their own blocks.
        self._first, self._before = (first,), tuple(before)
        self.scale, self.stop_gradient = scale, stop_gradient
        up, down = torch.empty(rank, own.in_features), torch.empty(own.out_features, rank)
        for factor in (up, down):
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5), generator=generator)
        self.lora_up = nn.Parameter(up.to(own.weight))
        self.lora_down = nn.Parameter(down.to(own.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(..., i) -> (..., o)"""
        weight = self._first[0].weight
        increments = (*self._before, self)
        up = torch.cat([layer.lora_up for layer in increments])  # (k r, i)
        down = torch.cat([layer.lora_down for layer in increments], dim=1)  # (o, k r)
        y = F.linear(x, weight.detach() if self.stop_gradient else weight, self.bias)
        return y + self.scale * F.linear(F.linear(x, up), down)

    def merged(self) -> nn.Linear:
        """A plain layer with its full weight, added up in float64."""
        first = self._first[0].weight
        with torch.no_grad():
            weight = first.double()
            for layer in (*self._before, self):
                weight = weight + self.scale * layer.lora_down.double() @ layer.lora_up.double()
        return plain_linear(weight, self.bias, like=first)


@dataclass(frozen=True, kw_only=True)
class VLoRA:
    """A vision transformer in compounds, trained from scratch.

    Args:
        compound: Blocks in a compound; the last one may have fewer.
        rank: r.
        alpha: The scale is alpha / r.
        chained: Whether an increment is added to the block before, or hung on the first one.
    """

    compound: int = 4
    rank: int = 8
    alpha: float = 1.0
    chained: bool = True

    name: ClassVar[str] = "vlora"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = True
    size: ClassVar[str | None] = None
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`; the weights of blocks that are first in their compound are kept."""
        blocks = getattr(backbone, "blocks", None)
        if not isinstance(blocks, nn.Sequential):
            raise BackboneError(
                f"VLoRA needs blocks of one shape in a row; {type(backbone).__name__} has none"
            )
        network = AdaptedNetwork(backbone)
        network.train_also(name for name, _ in backbone.named_parameters())
        names = [spec.name for spec in find_layers(backbone, _PROJECTIONS)]
        check_called(backbone, names)
        generator = torch.Generator().manual_seed(seed)
        for name in names:
            _, number, leaf = name.split(".", 2)
            place = int(number) % self.compound
            if not place:
                continue
            first = backbone.get_submodule(f"blocks.{int(number) - place}.{leaf}")
            own = backbone.get_submodule(name)
            assert isinstance(first, nn.Linear)
            assert isinstance(own, nn.Linear)
            before = [
                layer
                for step in range(1, place if self.chained else 1)
                if isinstance(
                    layer := backbone.get_submodule(f"blocks.{int(number) - place + step}.{leaf}"),
                    IncrementedLinear,
                )
            ]
            increment = IncrementedLinear(
                own,
                first,
                before,
                rank=self.rank,
                scale=self.alpha / self.rank,
                stop_gradient=not self.chained,
                generator=generator,
            )
            network.replace(name, increment)
        return network
