"""Training: a uniform random subnet at every step, gradients through its support tensors and the
head.

The published recipe (GLoRA, arXiv 2306.07967, section 4 and its code): AdamW, cosine schedule with
warm-up, drop path, cross-entropy, no augmentation. All that is random is a function of the seed and
of the epoch or step, so a run that was interrupted and resumed ends with the weights of one that
was not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch.random import fork_rng

from supernet.checkpoints import load_checkpoint, save_checkpoint
from supernet.data import Split
from supernet.errors import CheckpointError, TrainingDivergedError
from supernet.evaluation import Precision, autocast
from supernet.network import Supernet

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are the published supernet's.

    Args:
        epochs: Passes over the training split.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW, on every trained tensor.
        warmup_epochs: Linear from warmup_lr to lr; fewer where there are hardly more epochs.
        warmup_lr: Learning rate of the first epoch.
        min_lr: Learning rate at which the cosine ends.
        precision: `auto` is bf16 autocast on CUDA and float32 elsewhere.
    """

    epochs: int = 500
    batch_size: int = 64
    lr: float = 5e-4
    weight_decay: float = 1e-4
    warmup_epochs: int = 10
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Where training keeps what it needs to go on after an interruption.

    Args:
        path: One file, replaced as a whole.
        every_s: Seconds between two writes; a write happens at the end of an epoch.
        identity: What the run is made of (fingerprints, space); a checkpoint of another is refused.
    """

    path: Path
    every_s: float = 30.0
    identity: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What training tells after each epoch: epochs done, of how many, the epoch's mean loss, its
    lr.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that is a function of `parts` alone (SHA-256)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def train_supernet(
    supernet: Supernet,
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    checkpointing: Checkpointing | None = None,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> None:
    """Train support tensors and head in place, one uniformly drawn subnet a step.

    Args:
        supernet: On the device where it trains; its frozen weights do not change.
        train: The training split, on the same device or on the CPU.
        recipe: Epochs, learning rates and so on.
        seed: Of batches, subnets and drop path.
        checkpointing: Resume from there if there is a checkpoint, and write one now and then.
        on_epoch: Called after each epoch, for progress bars.

    Raises:
        TrainingDivergedError: A loss is not finite; the last checkpoint is of a finite epoch.
        CheckpointError: The checkpoint is damaged or of another run.
    """

    def draw_subnet(step: int) -> None:
        supernet.set_active_subnet(supernet.space.sample(random.Random(f"{seed}/step/{step}")))

    _fit(
        supernet,
        dict(supernet.trainable_parameters()),
        train,
        recipe,
        seed=seed,
        before_step=draw_subnet,
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )
    supernet.set_active_subnet(None)


def train_backbone(
    model: nn.Module,
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    checkpointing: Checkpointing | None = None,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> None:
    """Train all weights of a plain network in place; arguments and errors as in
    `train_supernet`.
    """
    _fit(
        model,
        dict(model.named_parameters()),
        train,
        recipe,
        seed=seed,
        before_step=lambda step: None,
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )


def _fit(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    before_step: Callable[[int], None],
    checkpointing: Checkpointing | None,
    on_epoch: Callable[[EpochEnd], None] | None,
) -> None:
    device = next(iter(parameters.values())).device
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs,
        lr_min=recipe.min_lr,
        warmup_t=min(recipe.warmup_epochs, recipe.epochs // 2),
        warmup_lr_init=recipe.warmup_lr,
    )
    first, identity = 0, _run_identity(checkpointing, recipe, seed)
    if checkpointing is not None and checkpointing.path.exists():
        first = _restore(checkpointing.path, identity, parameters, optimizer)
        _log.info("resuming training after epoch %d of %d", first, recipe.epochs)
    steps = math.ceil(len(train) / recipe.batch_size)
    generators = [device] if device.type == "cuda" else []  # beside the CPU's: left as they were
    saved_at = time.monotonic()
    model.train()
    for epoch in range(first, recipe.epochs):
        schedule.step(epoch)
        shuffled = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
        order = torch.randperm(len(train), generator=shuffled)  # (images)
        losses: list[Tensor] = []
        batches = train.gather_each(torch.split(order, recipe.batch_size))
        for step, (images, labels) in enumerate(batches, start=epoch * steps):
            before_step(step)
            with fork_rng(generators), autocast(device, recipe.precision):
                torch.manual_seed(derive_seed(seed, "step", step))  # drop path and dropout
                logits = model(images.to(device))  # (b, classes)
                loss = F.cross_entropy(logits, labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        # One look an epoch: a look a step would make a GPU wait for the host.
        epoch_losses = torch.stack(losses).float().tolist()
        _check_finite(epoch_losses, parameters, epoch * steps, checkpointing)
        if checkpointing is not None and (
            epoch + 1 == recipe.epochs or time.monotonic() - saved_at >= checkpointing.every_s
        ):
            _save(checkpointing.path, {**identity, "epoch": str(epoch + 1)}, parameters, optimizer)
            saved_at = time.monotonic()
        if on_epoch is not None:
            on_epoch(
                EpochEnd(
                    epoch=epoch + 1,
                    epochs=recipe.epochs,
                    loss=sum(epoch_losses) / len(epoch_losses),
                    lr=optimizer.param_groups[0]["lr"],
                )
            )
    model.eval()


@torch.no_grad()
def _check_finite(
    losses: list[float],
    parameters: Mapping[str, nn.Parameter],
    first_step: int,
    checkpointing: Checkpointing | None,
) -> None:
    """An epoch's losses, and the weights, which its last step may have spoilt after its loss."""
    fault = ""
    for step, loss in enumerate(losses, start=first_step):
        if not math.isfinite(loss):
            fault = f"the training loss is {loss} at step {step}"
            break
    else:
        if not torch.nn.utils.get_total_norm(parameters.values()).isfinite():
            fault = f"weights are not finite after step {first_step + len(losses) - 1}"
    if fault:
        kept = ""
        if checkpointing is not None and checkpointing.path.exists():
            kept = f". The last good checkpoint is kept: {checkpointing.path}"
        raise TrainingDivergedError(f"{fault}; lower the learning rate{kept}")


def _run_identity(checkpointing: Checkpointing | None, recipe: Recipe, seed: int) -> dict[str, str]:
    given = {} if checkpointing is None else checkpointing.identity
    return {**given, "recipe": json.dumps(asdict(recipe), sort_keys=True), "seed": str(seed)}


def _save(
    path: Path,
    metadata: Mapping[str, str],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    tensors: dict[str, Tensor] = {f"model/{name}": p for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{slot}/{name}"] = value
    save_checkpoint(path, tensors, metadata)


def _restore(
    path: Path,
    identity: Mapping[str, str],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Put weights and optimizer state back; the number of epochs that they have seen."""
    tensors, metadata = load_checkpoint(path, expected=identity)
    saved = {key: tensor for key, tensor in tensors.items() if key.startswith("model/")}
    if {k: t.shape for k, t in saved.items()} != {
        f"model/{name}": p.shape for name, p in parameters.items()
    }:
        raise CheckpointError(f"{str(path)!r} holds the training of another network")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[f"model/{name}"])
    places = {name: place for place, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, slot, name = key.split("/", 2)
            state.setdefault(places[name], {})[slot] = tensor
    # load_state_dict knows which slots live on the device and which on the CPU
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(metadata["epoch"])
