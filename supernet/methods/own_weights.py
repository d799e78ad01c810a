"""The usual ends of the scale: methods that train weights of the backbone's own and add none.

linear probe: the head alone. full fine-tuning: everything. BitFit: the biases (Ben Zaken et al.
2022, arXiv 2106.10199); all of them, those of norms and patch embedding included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from supernet.adapted_network import AdaptedNetwork


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Trains the classifier head alone."""

    name: ClassVar[str] = "linear"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = None
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        return AdaptedNetwork(backbone)


@dataclass(frozen=True, kw_only=True)
class FullFineTuning:
    """Trains every weight."""

    name: ClassVar[str] = "full"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = None
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone)
        network.train_also(name for name, _ in backbone.named_parameters())
        return network


@dataclass(frozen=True, kw_only=True)
class FromScratch(FullFineTuning):
    """Trains every weight of a network that starts at random: the full-rank twin of VLoRA."""

    name: ClassVar[str] = "scratch"
    from_scratch: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class BitFit:
    """Trains the biases."""

    name: ClassVar[str] = "bitfit"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = None
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone)
        network.train_also(
            name
            for name, _ in backbone.named_parameters()
            if name.rpartition(".")[2] in ("bias", "q_bias", "v_bias")
        )
        return network
