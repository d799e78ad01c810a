"""What the processes of a training share: the latest checkpoint, and how far the workers are.

Without torch or timm: three processes of a run compute nothing (the actor below, the task that asks
Ray Train for the run, and Ray Train's controller), and importing a network's libraries into each
would cost more than a short training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces import GLoRASearchError

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training checkpoint on its way between processes.

    Args:
        tensors: By name, as arrays.
        metadata: Of the file.
    """

    tensors: Arrays
    metadata: dict[str, str]


class Keeper:
    """An actor beside the driver: how far the workers are, their checkpoint, and what ended them.

    Args:
        checkpoint: To go on from.
    """

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self._checkpoint = checkpoint
        self._number = 0
        self._end: dict[str, Any] | None = None
        self._error: GLoRASearchError | None = None

    def checkpoint(self) -> Checkpoint | None:
        """The latest."""
        return self._checkpoint

    def keep(self, checkpoint: Checkpoint) -> None:
        """Hold this one from now on."""
        self._checkpoint = checkpoint
        self._number += 1

    def tell(self, end: dict[str, Any]) -> None:
        """An epoch is over: the fields of its `supernet.EpochEnd`."""
        self._end = end

    def fail(self, error: GLoRASearchError) -> None:
        """Note an error that a new attempt would raise again; the first one is kept."""
        self._error = self._error or error

    def news(
        self, seen: int
    ) -> tuple[GLoRASearchError | None, dict[str, Any] | None, int, Checkpoint | None]:
        """What has failed, the last epoch, the number of the latest checkpoint, and that one unless
        it is `seen`.
        """
        checkpoint = self._checkpoint if self._number != seen else None
        return self._error, self._end, self._number, checkpoint
