"""Real images and the logits that a network gives them: what a written file is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from supernet.data import Split

Run = Callable[[Tensor], Tensor]
"""Normalised images (b, c, h, w) to logits (b, classes), both float32 on the CPU."""

N_IMAGES: Final = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """Batches of one, two, and all other images, so that a batch size that was frozen shows.

    Args:
        batches: float32 (b, c, h, w), normalised.
        logits: Of the network, float32 (b, classes), for each batch.
    """

    batches: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]

    @property
    def n_images(self) -> int:
        """Images in all batches."""
        return sum(len(batch) for batch in self.batches)

    def largest_difference(self, run: Run) -> float:
        """The largest absolute difference of a logit; NaN where there is one that is no number,
        infinity where shapes differ.
        """
        largest = 0.0
        for images, expected in zip(self.batches, self.logits, strict=True):
            logits = run(images)
            if logits.shape != expected.shape:
                return float("inf")
            difference = (logits - expected).abs().max().item()
            if not difference <= float("inf"):
                return float("nan")
            largest = max(largest, difference)
        return largest


@torch.inference_mode()
def sample_of(network: nn.Module, split: Split) -> Sample:
    """Up to N_IMAGES images of a split, and what the network makes of them.

    Args:
        network: In evaluation mode, on the CPU.
        split: Images are taken evenly from all of it, since it may be sorted by class.
    """
    n = min(N_IMAGES, len(split))
    picked = torch.linspace(0, len(split) - 1, n).round().long()
    images = split.gather(picked)[0].float().cpu()
    batches = tuple(batch for batch in (images[:1], images[1:3], images[3:]) if len(batch))
    return Sample(batches=batches, logits=tuple(network(batch) for batch in batches))


def without_gradients(network: Run) -> Run:
    """The same network, which keeps nothing for a backward pass."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(images)

    return run
