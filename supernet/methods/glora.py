"""GLoRA with one configuration for all layers, or any search space over them.

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C

(Chavan et al. 2023, arXiv 2306.07967.) The layer is `supernet.layer.GLoRALinear`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from search_spaces import SearchSpace
from supernet.backbones import DEFAULT_PATTERNS, find_layers
from supernet.layer import Storage
from supernet.network import Supernet


@dataclass(frozen=True, kw_only=True)
class GLoRA:
    """A supernet over the layers that match.

    Args:
        choices: Support tensor to the tokens that may be chosen. With one token each there is one
            subnet: it is active from the start, and what it does not use is frozen.
        patterns: Of the layers that are adapted.
        storage: See `GLoRALinear`.
    """

    choices: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {
            "A": ("lora_4",),
            "B": ("lora_4",),
            "C": ("vector",),
            "D": ("vector",),
            "E": ("vector",),
        }
    )
    patterns: Sequence[str] = DEFAULT_PATTERNS
    storage: Storage = "separate"

    name: ClassVar[str] = "glora"
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = None
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> Supernet:
        """See `Method.adapt`."""
        space = SearchSpace(find_layers(backbone, self.patterns), self.choices)
        supernet = Supernet(backbone, space, storage=self.storage, seed=seed)
        if space.size == 1:
            only = space.min_subnet()
            supernet.set_active_subnet(only)
            active = {id(parameter) for parameter in supernet.active_parameters([only])}
            for _, parameter in supernet.trainable_parameters():
                parameter.requires_grad_(id(parameter) in active)
        return supernet
