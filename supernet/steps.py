"""The forward and backward passes of one training step, up to the optimizer.

Legend: `b` images of the batch, `k` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import SubnetConfig
from supernet.averaging import Team
from supernet.evaluation import autocast
from supernet.network import Supernet
from supernet.paths import Paths
from supernet.recipes import Design, Recipe


class Passes(Protocol):
    """Makes the gradients of a step."""

    def __call__(self, step: int, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients in the parameters.

        Args:
            step: Its number.
            images: (b, c, h, w), normalised, on the device of the parameters.
            labels: int64 (b).

        Returns:
            The mean loss before the step, a scalar on the device, without gradient.
        """
        ...

    def trained(self, step: int) -> Sequence[nn.Parameter]:
        """The parameters that have a gradient in any process of the team in this step."""
        ...


class NetworkPasses:
    """One forward and one backward of a network.

    Args:
        model: In training mode.
        recipe: Its label smoothing and its precision count here.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._model, self._recipe = model, recipe

    def __call__(self, step: int, images: Tensor, labels: Tensor) -> Tensor:
        """As `Passes` says."""
        smoothing = self._recipe.label_smoothing
        with autocast(images.device, self._recipe.precision):
            loss = F.cross_entropy(self._model(images), labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def trained(self, step: int) -> Sequence[nn.Parameter]:
        """No network of this kind trains in a team."""
        return ()


class SupernetPasses:
    """The passes of the subnets that a step of a supernet takes: the mean of their gradients.

    Args:
        supernet: In training mode; the last subnet of a step stays active.
        recipe: Its label smoothing and its precision count here.
        design: Which subnets a step takes, and how they are trained; see `Design`.
        seed: Of the paths.
        team: The processes that train together.
    """

    def __init__(
        self, supernet: Supernet, recipe: Recipe, design: Design, *, seed: int, team: Team
    ) -> None:
        self._supernet, self._recipe, self._design = supernet, recipe, design
        self._paths = Paths(supernet.space, design, seed)
        self._team = team

    def __call__(self, step: int, images: Tensor, labels: Tensor) -> Tensor:
        """As `Passes` says."""
        subnets = self._paths.of(self._team.path(step))
        if self._design.sandwich:
            return self._sandwich(subnets, images, labels)
        n = min(len(subnets), len(images))
        total = torch.zeros((), device=images.device)
        for subnet, part, targets in zip(
            subnets[:n], images.tensor_split(n), labels.tensor_split(n), strict=True
        ):
            loss, _ = self._backward(subnet, part, targets, share=len(part) / len(images))
            total += loss
        return total

    def trained(self, step: int) -> Sequence[nn.Parameter]:
        """The head's, and those of the support tensors that any path of the step uses."""
        numbers = self._team.paths(step)
        subnets = [subnet for number in numbers for subnet in self._paths.of(number)]
        return self._supernet.active_parameters(subnets)

    def _sandwich(self, subnets: Sequence[SubnetConfig], images: Tensor, labels: Tensor) -> Tensor:
        share = 1 / len(subnets)
        total, logits = self._backward(subnets[0], images, labels, share=share)
        taught = logits.softmax(1)  # (b, k)
        for subnet in subnets[1:]:
            loss, _ = self._backward(subnet, images, taught, share=share)
            total = total + loss
        return total

    def _backward(
        self, subnet: SubnetConfig, images: Tensor, targets: Tensor, *, share: float
    ) -> tuple[Tensor, Tensor]:
        """Add a subnet's gradients, times `share`; its loss, times `share`, and its logits (b, k).

        Args:
            subnet: Becomes active.
            images: (b, c, h, w).
            targets: Labels (b), or probabilities (b, k), which are not smoothed.
            share: Of the step.
        """
        smoothing = self._recipe.label_smoothing if targets.ndim == 1 else 0.0
        self._supernet.set_active_subnet(subnet)
        with autocast(images.device, self._recipe.precision):
            logits = self._supernet(images)
            loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
            if self._design.consistency:
                again = self._supernet(images)  # other noise, other dropped paths
                distance = (logits.float() - again.float()).square().sum(1).mean()
                loss = loss + self._design.consistency * distance
        loss = loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach()
