"""What a trial of a sweep sends to Ray Tune; without torch, which the tuning process has not."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Report:
    """The state of a trial at a rung, or its failure.

    Args:
        percent: Of its epochs that are trained.
        epochs: The same in epochs.
        loss: Mean val loss of the sweep's subnets, nats; NaN if it failed.
        top1: Their mean top-1.
        train_s: Seconds since it started.
        worker: Who trains it.
        error_type: The class of the error; None unless it failed.
        error: What went wrong; None unless it failed.
    """

    percent: float | None = None
    epochs: int = 0
    loss: float = math.nan
    top1: float | None = None
    train_s: float
    worker: str
    error_type: str | None = None
    error: str | None = None
