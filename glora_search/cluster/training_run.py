"""A run of Ray Train, as the task that asks for it and its controller see it: without torch.

They unpickle what is named here, and so import this module; only workers import `training_worker`.
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any, Final

from glora_search.cluster.connection import WorkerPool

_log = logging.getLogger(__name__)
_CONTROLLER_TRIES: Final = 3


def run_ray_train(config: dict[str, Any], pool: WorkerPool, max_restarts: int) -> None:
    """A run of Ray Train, from its first worker to its end.

    Ray Train replaces lost workers, but fails if its controller calls a worker that is being
    removed (Ray 2.60). In that case the run is started again, from the latest checkpoint.
    """
    from ray.train import ControllerError

    for tries_left in reversed(range(_CONTROLLER_TRIES)):
        try:
            _run_ray_train(config, pool, max_restarts)
            return
        except ControllerError as error:
            if not tries_left:
                raise
            _log.warning("Ray Train's controller failed and is started anew: %s", error)


def _run_ray_train(config: dict[str, Any], pool: WorkerPool, max_restarts: int) -> None:
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
    from glora_search.cluster.training_worker import work

    work(config)
