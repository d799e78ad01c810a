"""A run of Ray Train as its processes see it, without torch or timm: only the workers need those.

Three processes of a run compute nothing: the actor that holds the latest checkpoint, the task that
asks Ray Train for the run, and Ray Train's own controller. They unpickle what is named here, and so
import this module; loading a network's libraries into each would cost more than a short training.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from glora_search.cluster.connection import WorkerPool
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
        """What will not go better by trying again."""
        self._error = self._error or error

    def news(
        self, seen: int
    ) -> tuple[GLoRASearchError | None, dict[str, Any] | None, int, Checkpoint | None]:
        """What has failed, the last epoch, the number of the latest checkpoint, and that one unless
        it is `seen`.
        """
        checkpoint = self._checkpoint if self._number != seen else None
        return self._error, self._end, self._number, checkpoint


def run_ray_train(config: dict[str, Any], pool: WorkerPool, max_restarts: int) -> None:
    """A run of Ray Train, from its first worker to its end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    with tempfile.TemporaryDirectory(prefix="glora-search-train-") as folder:
        TorchTrainer(
            _work,
            train_loop_config=config,
            # NCCL wants a GPU for each process; gloo lets several share one.
            torch_config=TorchConfig(backend="nccl" if pool.gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=pool.workers,
                use_gpu=pool.gpus > 0,
                resources_per_worker={"CPU": pool.cpus, "GPU": pool.gpus},
            ),
            run_config=RunConfig(
                name="supernet",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=max_restarts),
            ),
        ).fit()


def _work(config: dict[str, Any]) -> None:
    from glora_search.cluster.training import work

    work(config)
