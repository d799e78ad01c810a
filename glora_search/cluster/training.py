"""The supernet trains on a Ray cluster, by Ray Train: each worker takes a path of its own a step.

Ray Train starts the workers and torch's process group, and starts all of them again where one is
lost. Checkpoints do not go through its storage, which would have to be a path that every node
reaches: a small actor beside the driver holds the latest one. Workers fetch it from there when they
start, the first of them brings new ones, and the driver writes each to its own disk. So nothing has
to be shared by the nodes, and a driver that was killed goes on from its own file.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from glora_search.cluster.connection import WorkerPool, connect, ray
from glora_search.cluster.training_run import Arrays, Checkpoint, Keeper, run_ray_train
from glora_search.evaluating.package import pack_split, unpack_split
from glora_search.study.errors import ClusterError
from glora_search.study.sections import SupernetSection
from search_spaces import GLoRASearchError, SearchSpace
from supernet import (
    Architecture,
    Checkpointing,
    EpochEnd,
    Recipe,
    Split,
    Storage,
    Supernet,
    Team,
    train_supernet,
)
from supernet.checkpoints import load_checkpoint, save_checkpoint
from supernet.training_checkpoints import trained_state

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.2


def read_checkpoint(path: Path) -> Checkpoint:
    """That of a file."""
    tensors, metadata = load_checkpoint(path)
    return Checkpoint(tensors={name: t.numpy() for name, t in tensors.items()}, metadata=metadata)


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file, whole or not at all."""
    # Arrays from the object store are read-only, which torch would warn of.
    tensors = {name: torch.tensor(array) for name, array in checkpoint.tensors.items()}
    save_checkpoint(path, tensors, checkpoint.metadata)


@dataclass(frozen=True, kw_only=True)
class TrainingPackage:
    """What a worker needs to train: plain values and arrays, sent once.

    Args:
        architecture: Of the backbone.
        drop_path: Of the backbone while it trains.
        space: JSON of the search space.
        storage: How the supernet stores choices.
        weights: Every tensor of the untrained supernet's backbone.
        split: The training split, packed.
        recipe: How to train.
        seed: Of batches, subnets and drop path.
        identity: What the run is made of, for its checkpoints.
        every_s: Seconds between two checkpoints.
        threads: CPU threads of a worker.
        on_gpu: Whether the worker is given one.
    """

    architecture: Architecture
    drop_path: float
    space: str
    storage: Storage
    weights: Arrays
    split: Split | dict[str, Any]
    recipe: Recipe
    seed: int
    identity: Mapping[str, str]
    every_s: float
    threads: int
    on_gpu: bool

    @classmethod
    def of(
        cls, supernet: Supernet, architecture: Architecture, split: Split, **how: Any
    ) -> TrainingPackage:
        """Pack a supernet that is in this process; `how` are the other fields."""
        return cls(
            architecture=architecture,
            space=supernet.space.to_json(),
            storage=supernet.storage,
            weights={k: v.cpu().numpy() for k, v in supernet.backbone.state_dict().items()},
            split=pack_split(split),
            **how,
        )

    def unpack(self, device: torch.device) -> Supernet:
        """Build the untrained supernet again, and set this process's number of threads."""
        torch.set_num_threads(self.threads)
        supernet = Supernet(
            self.architecture.build(drop_path=self.drop_path),
            SearchSpace.from_json(self.space),
            storage=self.storage,
        )
        weights = {name: torch.tensor(array) for name, array in self.weights.items()}
        supernet.backbone.load_state_dict(weights)
        return supernet.to(device)

    def train(self, team: Team, device: torch.device, keeper: Any, path: Path) -> None:
        """Train as one of a team, from where the keeper's checkpoint is.

        Args:
            team: The workers.
            device: Where this one computes.
            keeper: The actor.
            path: A file of this worker's own.
        """
        supernet = self.unpack(device)
        begun: Checkpoint | None = ray.get(keeper.checkpoint.remote())
        if begun is not None:
            write_checkpoint(begun, path)

        def bring(written: Path) -> None:
            ray.get(keeper.keep.remote(read_checkpoint(written)))

        def tell(end: EpochEnd) -> None:
            if team.rank == 0:
                keeper.tell.remote(asdict(end))

        train_supernet(
            supernet,
            unpack_split(self.split).to(device),
            self.recipe,
            seed=self.seed,
            team=team,
            checkpointing=Checkpointing(
                path=path, every_s=self.every_s, identity=self.identity, on_write=bring
            ),
            on_epoch=tell,
        )


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
            ray.shutdown()


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
    supernet.load_trainable_state(trained_state(tensors))


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
            f"the workers that train the supernet were lost: {_told(lost)}; what they had reached "
            "is kept, and the same command or `resume` goes on from there"
        ) from lost
    finally:
        if not ended:
            ray.cancel(run, force=True)
        ray.kill(keeper)


def work(config: dict[str, Any]) -> None:
    """What each worker does; `config` has the package, packed, and the keeper."""
    from ray.train.torch import get_device

    keeper = config["keeper"]
    package: TrainingPackage = ray.get(config["package"][0])
    device = get_device() if package.on_gpu else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        try:
            package.train(
                Team.of_process_group(), device, keeper, Path(folder) / "training.safetensors"
            )
        except GLoRASearchError as error:
            ray.get(keeper.fail.remote(error))
            raise


def _told(error: Exception) -> str:
    """The last line of what Ray says."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())[-300:]
