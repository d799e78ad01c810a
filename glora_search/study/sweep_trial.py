"""The value that flows through a sweep: a trial that has ended.

Standard library only: the process of Ray Tune, which needs no torch and no database, makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """A recipe and its result.

    Args:
        id: Unique; Ray Tune's.
        recipe: Swept key of [supernet] to its value.
        state: `stopped` is what ASHA did not let train to its end.
        losses: Percent of its epochs to the mean loss of the sweep's subnets on the validation
            split, nats; empty if it failed before the first.
        top1: Their mean top-1 when it ended; None without a loss.
        epochs: How many it had trained when it was scored for the last time.
        train_s: Seconds from its start to its end.
        worker: Who trained it, such as `host:pid`.
        error_type: The class of the error; None unless it failed.
        error: One line on what went wrong; None unless it failed.
    """

    id: str
    recipe: Mapping[str, float]
    state: State
    losses: Mapping[int, float] = field(default_factory=dict)
    top1: float | None = None
    epochs: int = 0
    train_s: float = 0.0
    worker: str = ""
    error_type: str | None = None
    error: str | None = None

    @property
    def loss(self) -> float | None:
        """The last one."""
        return self.losses[max(self.losses)] if self.losses else None

    @property
    def rank(self) -> tuple[bool, int, float]:
        """A sort key: complete ones by loss, then those that came farther, then failures."""
        loss = math.inf if self.loss is None else self.loss
        return self.state == "failed", -max(self.losses, default=0), loss
