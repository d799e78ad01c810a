"""Shared by methods that change linear layers: the base class of a layer, its merge, its search."""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork, check_called
from supernet.backbones import find_layers
from supernet.errors import BackboneError

Adapter = TypeVar("Adapter", bound=nn.Module)


class LinearAdapter(nn.Module, ABC):
    """Stands in the place of a frozen `nn.Linear`; subclasses add a change of weight and bias.

    Args:
        base: The layer, (o, i); its weight and bias are shared, not copied.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias

    @abstractmethod
    def merged_tensors(self) -> tuple[Tensor, Tensor | None]:
        """Weight (o, i) and bias (o) of the plain layer, computed in float64."""

    def merged(self) -> nn.Linear:
        """A plain layer that computes the same."""
        with torch.no_grad():
            return plain_linear(*self.merged_tensors(), like=self.weight)


def plain_linear(weight: Tensor, bias: Tensor | None, *, like: Tensor) -> nn.Linear:
    """A new `nn.Linear` with copies of `weight` (o, i) and `bias` (o), of the type of `like`."""
    o, i = weight.shape
    linear = nn.Linear(i, o, bias=bias is not None, device=like.device, dtype=like.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


def adapt_linears(
    network: AdaptedNetwork,
    patterns: Sequence[str],
    make: Callable[[str, nn.Linear], nn.Module],
) -> None:
    """Replace the linear layers that match, in the order of the backbone.

    Args:
        network: Whose backbone is changed.
        patterns: As in `find_layers`.
        make: Name and layer to the module that takes its place.

    Raises:
        BackboneError: No layer matches, or the backbone never calls one of them.
    """
    names = [spec.name for spec in find_layers(network.backbone, patterns)]
    for name in names:
        base = network.backbone.get_submodule(name)
        assert isinstance(base, nn.Linear), "find_layers gives linear layers alone"
        network.replace(name, make(name, base))
    check_called(network.backbone, names)


def matching_modules(backbone: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Modules whose names match, in the order of the backbone.

    Raises:
        BackboneError: None does.
    """
    found = {
        name: module
        for name, module in backbone.named_modules()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not found:
        raise BackboneError(
            f"the backbone, {type(backbone).__name__}, has no module that matches "
            f"{', '.join(map(repr, patterns))}"
        )
    return found
