"""The supernet trains on a Ray cluster, by Ray Train: each worker takes a path of its own a step.

Ray Train starts the workers and torch's process group, and starts all of them again where one is
lost. Checkpoints do not go through its storage, which would have to be a path that every node
reaches: a small actor beside the driver holds the latest one. Workers fetch it from there when they
start, the first of them brings new ones, and the driver writes each to its own disk. So nothing has
to be shared by the nodes, and a driver that was killed goes on from its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from glora_search.cluster.connection import WorkerPool, connect, disconnect, last_words, ray
from glora_search.cluster.training_keeper import Keeper
from glora_search.cluster.training_run import run_ray_train
from glora_search.cluster.training_worker import TrainingPackage, read_checkpoint, write_checkpoint
from glora_search.study.errors import ClusterError
from glora_search.study.network_sections import SupernetSection
from supernet import (
    EpochEnd,
    Supernet,
)
from supernet.checkpoints import load_checkpoint
from supernet.training_checkpoints import final_state

_POLL_S: Final = 0.2


@contextmanager
def training_workers(section: SupernetSection, address: str | None) -> Iterator[WorkerPool]:
    """A connection to Ray for as long as the supernet trains, and the workers to ask it for.

    Args:
        section: Of the study.
        address: None starts a Ray of the right size on this machine, and ends it.

    Raises:
        ClusterError: There is no Ray at `address`, or it has not what the workers need.
    """
    mine = not ray.is_initialized()
    pool = WorkerPool(
        workers=section.workers,
        cpus=section.cpus_per_worker,
        keys=("supernet.workers", "supernet.cpus_per_worker", "supernet.gpus_per_worker"),
    )
    try:
        connect(address, pool)
        gpus = section.gpus_per_worker
        if gpus is None:
            there = ray.cluster_resources().get("GPU", 0) >= pool.workers
            wanted = section.device != "cpu" and (there or section.device != "auto")
            gpus = 1.0 if wanted else 0.0
        pool = replace(pool, gpus=gpus)
        connect(address, pool)
        yield pool
    finally:
        if mine:
            disconnect()


def train_on_cluster(
    supernet: Supernet,
    package: TrainingPackage,
    pool: WorkerPool,
    *,
    max_restarts: int,
    path: Path,
    on_epoch: Callable[[EpochEnd], None],
) -> None:
    """Train a supernet on workers of the cluster that was joined; it ends with their weights.

    Args:
        supernet: That was packed.
        package: What the workers get.
        pool: Number and size of the workers.
        max_restarts: How often lost workers are replaced, in the whole run.
        path: Where the driver keeps the latest checkpoint, and finds the one to go on from.
        on_epoch: Called in this thread, for progress bars: with an epoch now and then.

    Raises:
        ClusterError: Workers were lost too often.
        GLoRASearchError: What ended the training in a worker, such as TrainingDivergedError.
    """
    _train(package, pool, max_restarts, path, on_epoch)
    tensors, _ = load_checkpoint(path)
    supernet.load_trainable_state(final_state(tensors))


def _train(
    package: TrainingPackage,
    pool: WorkerPool,
    max_restarts: int,
    path: Path,
    on_epoch: Callable[[EpochEnd], None],
) -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Where the driver is: if that node is lost, everything is.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    begun = read_checkpoint(path) if path.exists() else None
    beside = {"num_cpus": 0, "scheduling_strategy": here}
    keeper: Any = ray.remote(Keeper).options(**beside).remote(begun)
    config = {"package": [ray.put(package)], "keeper": keeper}
    # In a process of its own: Ray Train would block this one, and take its SIGINT.
    task: Any = ray.remote(run_ray_train).options(max_retries=0, **beside)
    run = task.remote(config, pool, max_restarts)
    seen, epoch, ended = 0, 0, False
    try:
        while not ended:
            ended = bool(ray.wait([run], timeout=_POLL_S)[0])
            error, end, number, checkpoint = ray.get(keeper.news.remote(seen))
            if error is not None:
                raise error  # Ray Train would start everybody again, whatever it is
            if checkpoint is not None:
                write_checkpoint(checkpoint, path)
                seen = number
            if end is not None and end["epoch"] != epoch:
                epoch = end["epoch"]
                on_epoch(EpochEnd(**end))
        ray.get(run)
    except ray.exceptions.RayError as lost:
        raise ClusterError(
            f"the workers that train the supernet were lost: {last_words(lost)}; what they had "
            "reached is kept, and the same command or `resume` goes on from there"
        ) from lost
    finally:
        if not ended:
            ray.cancel(run, force=True)
        ray.kill(keeper)
