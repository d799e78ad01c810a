"""The fine-tuning stage: load a subnet that was trained on from its file, or train it on.

A function of the study's seed, of the subnet and of how it is trained on, whatever was exported
before. An interrupted fine-tuning begins anew, and gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from glora_search.stages.choosing import Finetuning
from glora_search.stages.prepare import Materials
from glora_search.stages.progress import Progress
from glora_search.stages.recipes import finetuning_recipe
from glora_search.stages.trained_once import cached_path, train_once
from glora_search.stages.training import supernet_fingerprint
from search_spaces import SubnetConfig
from supernet import Checkpointing, EpochEnd, Supernet
from supernet.checkpoints import load_checkpoint
from supernet.errors import TrainingDivergedError
from supernet.finetuning import finetune, finetune_averaged, with_tensors
from supernet.recipes import identity_of
from supernet.training import derive_seed

_KEPT_EPOCH = "kept_epoch"


def finetune_or_load(
    supernet: Supernet,
    subnet: SubnetConfig,
    finetuning: Finetuning,
    materials: Materials,
    progress: Progress,
) -> tuple[Supernet, int]:
    """A copy of the supernet in which a subnet was trained on, and the epoch that was kept.

    Args:
        supernet: Trained; neither it nor its file changes.
        subnet: Of its space.
        finetuning: How to train it on.
        materials: Of the study.
        progress: Where to report to.

    Raises:
        TrainingDivergedError: The loss stopped being finite.
        CheckpointError: The file cannot be read or written.
        ArtifactError: It is not here, and the artifacts cannot be looked into.
    """
    file = materials.file
    recipe = finetuning_recipe(
        file, epochs=finetuning.epochs, lr=finetuning.lr, batch_size=finetuning.batch_size
    )
    seed = derive_seed(file.study.seed, "fine-tuning", subnet.digest)
    identity = {
        **{name: materials.fingerprints[name] for name in ("backbone", "train", "val")},
        "supernet": supernet_fingerprint(supernet),
        "subnet": subnet.digest,
        "recipe": identity_of(recipe),
        "drop_path": str(file.supernet.drop_path),
        "batch_size": str(file.search.batch_size),
        "seed": str(seed),
    }
    averaged = finetuning.keep == "average"
    if averaged:  # the other files are older than these keys
        identity |= {"keep": finetuning.keep, "runs": str(finetuning.runs)}
    path = cached_path(file.study.directory / "finetuned", identity)
    if path.exists():
        progress.note(f"reusing the fine-tuned subnet {path}")
    made: dict[str, Tensor] = {}

    def train(_: Checkpointing, on_epoch: Callable[[EpochEnd], None]) -> None:
        device = next(supernet.parameters()).device
        with_recipe = partial(
            finetune_averaged if averaged else finetune,
            supernet,
            subnet,
            materials.train.to(device),
            materials.val.to(device),
            recipe,
            batch_size=file.search.batch_size,
            on_epoch=on_epoch,
        )
        try:
            if averaged:
                seeds = [derive_seed(seed, "run", run) for run in range(finetuning.runs)]
                tuned = with_recipe(seeds=seeds)
            else:
                tuned = with_recipe(seed=seed)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(
                f"cannot fine-tune with export.finetune_lr = {finetuning.lr:g}: {error}"
            ) from error
        made.update(tuned.tensors)
        made[_KEPT_EPOCH] = torch.tensor(tuned.epoch)

    train_once(
        path,
        identity,
        train,
        lambda: made,
        what="fine-tuning the subnet",
        epochs=finetuning.runs * finetuning.epochs,
        every_s=file.supernet.checkpoint_every_s,
        progress=progress,
        artifacts=materials.artifacts,
    )
    tensors, _ = load_checkpoint(path, expected=identity)
    kept_epoch = int(tensors.pop(_KEPT_EPOCH))
    return with_tensors(supernet, subnet, tensors), kept_epoch
