"""Put a fitted temperature into a network's head, so that what it exports has calibrated
probabilities. The predicted classes stay what they are.
"""

from __future__ import annotations

import copy
from typing import Final

import torch
from torch import Tensor, nn

from supernet.calibration import COLDEST, HOTTEST, fitted_temperature
from supernet.data import Split
from supernet.evaluation import class_index, evaluate_model, scored_logits
from supernet.network import Supernet

_INSIDE: Final = 1.01
"""A temperature nearer to a limit than this factor is the limit."""


@torch.inference_mode()
def temperature_of(network: nn.Module, split: Split, *, batch_size: int = 256) -> float:
    """The temperature that calibrates a network on a split; 1 where none between 1/20 and 20 does,
    such as of a network that is right on every image.

    Args:
        network: Plain, in evaluation mode.
        split: On any device; as in `evaluate_model`.
        batch_size: Images a forward.
    """
    device = next(network.parameters()).device
    kept = class_index(split.scored_classes, device)
    logits, labels = [], []
    for images, targets in split.batches(batch_size):
        logits.append(scored_logits(network(images.to(device)), kept).float())
        labels.append(targets.to(device))
    found = fitted_temperature(torch.cat(logits), torch.cat(labels))
    return found if COLDEST * _INSIDE < found < HOTTEST / _INSIDE else 1.0


def loss_when_calibrated(
    network: nn.Module, val: Split, test: Split, *, batch_size: int = 256
) -> float:
    """The loss on one split after a temperature was fitted on another.

    Args:
        network: Plain, in evaluation mode.
        val: On which to fit.
        test: On which to measure.
        batch_size: Images a forward.
    """
    temperature = temperature_of(network, val, batch_size=batch_size)
    return evaluate_model(_Divided(network, temperature), test, batch_size=batch_size).loss


class _Divided(nn.Module):
    """A network with its logits divided by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits / self.temperature


def with_temperature(supernet: Supernet, temperature: float) -> Supernet:
    """A copy of a supernet, in evaluation mode, with the head divided by a temperature: the logits
    of all its subnets are divided by it.

    Args:
        supernet: It is not changed.
        temperature: Above 0.
    """
    scaled = copy.deepcopy(supernet).eval()
    head = {name: tensor / temperature for name, tensor in supernet.head_state().items()}
    scaled.load_trainable_state({**scaled.trainable_state(), **head})
    return scaled
