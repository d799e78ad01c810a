"""Ways to train a supernet: each changes keys of the study file, one idea at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BASE: Final = "default"
"""The design that the offline suite's study file has; all others differ from it in what is said."""

DESIGNS: Final[Mapping[str, Mapping[str, Any]]] = {
    BASE: {},
    "published": {
        "storage": "entangled",
        "paths_per_step": 1,
        "paths": "uniform",
        "lr": 5e-3,
    },
    "published, same rate": {"storage": "entangled", "paths_per_step": 1, "paths": "uniform"},
    "entangled storage": {"storage": "entangled"},
    "one path a step": {"paths_per_step": 1},
    "two paths a step": {"paths_per_step": 2},
    "eight paths a step": {"paths_per_step": 8},
    "uniform paths": {"paths": "uniform"},
    "paths within the budget": {"paths": "budget"},
    "a third of the epochs": {"epochs": 1 / 3},
    "three times the epochs": {"epochs": 3},
    "half of the rate": {"lr": 5e-3},
    "twice the rate": {"lr": 2e-2},
    "sandwich": {"sandwich": 2},
    "moving average": {"ema": 0.99},
    "label smoothing": {"label_smoothing": 0.1},
    "noise": {"noise": 0.5},
    "consistency": {"noise": 0.5, "consistency": 0.1},
    "LoRA+ rates": {"lr_factors": {"down": 4.0, "up": 0.5}},
    "slow multipliers": {"lr_factors": {"A": 0.3, "D": 0.3}},
    "gradient start": {"init": "gradient"},
    "shifted images": {"shift": 1},
}
"""Name to keys of [supernet]; epochs are multiples of the default's."""


def keys_of(design: str, epochs: int) -> dict[str, Any]:
    """The keys of [supernet] that a design sets.

    Args:
        design: A name of DESIGNS.
        epochs: Those of the default.
    """
    keys = dict(DESIGNS[design])
    if "epochs" in keys:
        keys["epochs"] = max(1, round(keys["epochs"] * epochs))
    return keys
