"""Versions and machine, which are stored with every study and export because results depend on
them.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any, Final

import torch

_PACKAGES: Final = ("glora-search", "torch", "timm", "optuna", "ray", "numpy")


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def machine() -> dict[str, Any]:
    """What this process runs on, as far as numbers depend on it."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": platform.machine(), "threads": torch.get_num_threads(), "gpu": gpu}
