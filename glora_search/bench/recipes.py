"""How each method is trained by default: its published learning rate, and the sweep around it.

The rates are those of the methods' own code on VTAB-1k with ViT-B/16 (AdamW, batch 64, 100 epochs).
Small networks want larger ones, so the sweep reaches upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PUBLISHED_EPOCHS: Final = 100

BATCH_SIZE: Final = 64
"""Images of a step of the offline suite's methods without a supernet; the paths of a supernet's
step share a larger batch.
"""

OFFLINE_EPOCHS: Final = 30
"""Of the offline suite, whose networks are small; its supernets have their own number."""

QUICK_EPOCHS: Final = 20
QUICK_SUPERNET_EPOCHS: Final = 60

PUBLISHED_LR: Final = {
    "linear": 1e-3,
    "full": 1e-4,
    "bitfit": 1e-3,
    "lora": 1e-3,
    "ssf": 1e-3,
    "fact-tt": 1e-3,
    "fact-tk": 1e-3,
    "repadapter": 1e-3,
    "vpt-shallow": 1e-3,
    "vpt-deep": 1e-3,
    "adaptformer": 1e-3,
    "scratch": 1e-3,
    "vlora": 1e-3,
    "glora": 5e-4,
    "glora-search": 1e-3,
    "glora-random": 1e-3,
}
"""Method to the peak learning rate of AdamW; also the list of what can be compared. Those of the
search are twice the published one: choices that are stored apart bear it."""

SWEEP_FACTORS: Final = (1.0, 3.0, 10.0)
"""The sweep's learning rates, as multiples of the published one."""

QUICK_FACTORS: Final = (3.0, 10.0)
"""Those of the quick mode."""


def sweep_rates(method: str, factors: Sequence[float] = SWEEP_FACTORS) -> tuple[float, ...]:
    """The learning rates of a method's sweep."""
    return tuple(float(f"{factor * PUBLISHED_LR[method]:.6g}") for factor in factors)
