"""The exponential moving average of weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

_SOON: Final = 10


class WeightAverage:
    """w <- d w + (1 - d) weights after each step, with d = min(decay, (1 + t) / (10 + t)) at step
    t, so that the average forgets where it began.

    Args:
        parameters: Name to what is averaged.
        decay: Below 1.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters.values()), decay
        self.state: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (_SOON + step))
        weights = [parameter.detach() for parameter in self._parameters]
        torch._foreach_lerp_(list(self.state.values()), weights, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the weights: a second call undoes the first."""
        for parameter, average in zip(self._parameters, self.state.values(), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
