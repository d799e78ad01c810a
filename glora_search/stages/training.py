"""The training stage: load the supernet from its file, continue from a checkpoint, or train it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from glora_search.stages.prepare import (
    Materials,
    device_of,
    preprocessing_identity,
    use_threads,
)
from glora_search.stages.progress import Progress
from glora_search.stages.recipes import design_of, recipe_of
from glora_search.stages.trained_once import cached_path, train_once
from supernet import Checkpointing, Design, EpochEnd, Supernet, train_supernet
from supernet.checkpoints import load_checkpoint
from supernet.fingerprints import fingerprint
from supernet.recipes import identity_of


def train_or_load_supernet(materials: Materials, progress: Progress) -> Supernet:
    """The trained supernet on the study's device. It takes over the backbone of `materials`.

    Raises:
        CheckpointError: The file that the study names is of another backbone, space or storage.
        TrainingDivergedError: The loss stopped being finite.
        ArtifactError: It is not here, and the artifacts cannot be looked into.
    """
    file = materials.file
    path, identity = supernet_file(materials)
    use_threads(file)
    supernet = Supernet(
        materials.backbone,
        materials.space,
        storage=file.supernet.storage,
        seed=file.study.seed,
    )
    supernet.to(device_of(file))
    if file.supernet.checkpoint is None:
        if path.exists():
            progress.note(f"reusing the supernet {path}")
        train_once(
            path,
            identity,
            partial(_train_on_cluster if file.supernet.workers else _train, supernet, materials),
            supernet.trainable_state,
            what="training the supernet",
            epochs=file.supernet.epochs,
            every_s=file.supernet.checkpoint_every_s,
            progress=progress,
            artifacts=materials.artifacts,
        )
    state, _ = load_checkpoint(path, expected=identity)
    supernet.load_trainable_state(state)
    return supernet


def supernet_file(materials: Materials) -> tuple[Path, dict[str, str]]:
    """The file of a study's trained supernet, there or not, and the metadata that it must have."""
    file = materials.file
    identity = {
        "backbone": materials.fingerprints["backbone"],
        "space": materials.space.to_json(),
        "storage": file.supernet.storage,
    }
    if file.supernet.checkpoint is not None:
        return file.supernet.checkpoint, identity
    identity |= {
        "train": materials.fingerprints["train"],
        "recipe": identity_of(recipe_of(file)),
        "drop_path": str(file.supernet.drop_path),
        "seed": str(file.study.seed),
    }
    identity |= preprocessing_identity(file.data)
    design = design_of(file)
    if design != Design():
        identity["design"] = identity_of(design)
    if file.supernet.workers > 1:  # one worker gives the same weights as none
        identity["workers"] = str(file.supernet.workers)
    return cached_path(file.study.directory / "supernets", identity), identity


def supernet_fingerprint(supernet: Supernet) -> str:
    """SHA-256 of what training has made: support tensors and head."""
    return fingerprint(supernet.trainable_state())


def _train(
    supernet: Supernet,
    materials: Materials,
    checkpointing: Checkpointing,
    on_epoch: Callable[[EpochEnd], None],
) -> None:
    file = materials.file
    train_supernet(
        supernet,
        materials.train.to(device_of(file)),
        recipe_of(file),
        seed=file.study.seed,
        design=design_of(file),
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )


def _train_on_cluster(
    supernet: Supernet,
    materials: Materials,
    checkpointing: Checkpointing,
    on_epoch: Callable[[EpochEnd], None],
) -> None:
    from glora_search.cluster.training import train_on_cluster, training_workers
    from glora_search.cluster.training_worker import TrainingPackage

    file = materials.file
    section = file.supernet
    with training_workers(section, file.cluster.address) as pool:
        package = TrainingPackage.of(
            supernet,
            materials.architecture,
            materials.train,
            drop_path=section.drop_path,
            recipe=recipe_of(file),
            design=design_of(file),
            seed=file.study.seed,
            identity=checkpointing.identity,
            every_s=checkpointing.every_s,
            threads=section.threads or section.cpus_per_worker,
            on_gpu=pool.gpus > 0,
        )
        train_on_cluster(
            supernet,
            package,
            pool,
            max_restarts=section.max_restarts,
            path=checkpointing.path,
            on_epoch=on_epoch,
        )
