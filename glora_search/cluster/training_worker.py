"""What a worker does that trains a supernet with others: its package, and its part in the run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glora_search.cluster.connection import ray
from glora_search.cluster.packing import PackedSupernet, pack_split, unpack_split
from glora_search.cluster.training_keeper import Checkpoint
from search_spaces import GLoRASearchError
from supernet import (
    Architecture,
    Checkpointing,
    Design,
    EpochEnd,
    Recipe,
    Split,
    Supernet,
    Team,
    train_supernet,
)
from supernet.checkpoints import load_checkpoint, save_checkpoint


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
        supernet: Untrained.
        drop_path: Of the backbone while it trains.
        split: The training split, packed.
        recipe: How to train.
        design: Which subnets each step takes.
        seed: Of batches, subnets and drop path.
        identity: What the run is made of, for its checkpoints.
        every_s: Seconds between two checkpoints.
        threads: CPU threads of a worker.
        on_gpu: Whether the worker is given one.
    """

    supernet: PackedSupernet
    drop_path: float
    split: Split | dict[str, Any]
    recipe: Recipe
    design: Design
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
        packed = PackedSupernet.of(supernet, architecture)
        return cls(supernet=packed, split=pack_split(split), **how)

    def unpack(self, device: torch.device) -> Supernet:
        """Build the untrained supernet again, and set this process's number of threads."""
        torch.set_num_threads(self.threads)
        return self.supernet.unpack(device, drop_path=self.drop_path)

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
            design=self.design,
            team=team,
            checkpointing=Checkpointing(
                path=path, every_s=self.every_s, identity=self.identity, on_write=bring
            ),
            on_epoch=tell,
        )


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
