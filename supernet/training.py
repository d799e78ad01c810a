"""Training: a uniform random subnet at every step, gradients through its support tensors and the
head.

The published recipe (GLoRA, arXiv 2306.07967, section 4 and its code): AdamW, cosine schedule with
warm-up, drop path, cross-entropy, no augmentation. All that is random is a function of the seed and
of the epoch or step, so a run that was interrupted and resumed ends with the weights of one that
was not.

W processes that train together take W paths a step: each draws a subnet of its own, takes
`batch_size` images of its own out of the epoch's order, and the gradients are averaged. So a step
sees W * batch_size images and an epoch has a W-th of the steps.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch.random import fork_rng

from supernet.averaging import Team
from supernet.data import Split
from supernet.errors import CheckpointError, TrainingDivergedError
from supernet.evaluation import Precision, autocast
from supernet.network import Supernet
from supernet.training_checkpoints import Checkpointing, restore_training, save_training

__all__ = [
    "Checkpointing",
    "EpochEnd",
    "Recipe",
    "derive_seed",
    "make_optimizer",
    "train_network",
    "train_step",
    "train_supernet",
]

_log = logging.getLogger(__name__)
_ALONE: Final = Team()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are the published supernet's.

    Args:
        epochs: Passes over the training split.
        batch_size: Images a step and process; the last batch of an epoch may be smaller.
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
class EpochEnd:
    """The state after an epoch: epochs done, of how many, the epoch's mean loss, its learning
    rate.
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
    team: Team = _ALONE,
    checkpointing: Checkpointing | None = None,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> None:
    """Train support tensors and head in place, one uniformly drawn subnet a step and process.

    Args:
        supernet: On the device where it trains; its frozen weights do not change.
        train: The training split, on the same device or on the CPU.
        recipe: Epochs, learning rates and so on.
        seed: Of batches, subnets and drop path.
        team: The processes that train together; all of them call this with the same arguments, and
            end with the same weights.
        checkpointing: Resume from there if there is a checkpoint, and write one now and then; of a
            team every process reads the file and the first one writes it.
        on_epoch: Called after each epoch, for progress bars.

    Raises:
        TrainingDivergedError: A loss is not finite; the last checkpoint is of a finite epoch.
        CheckpointError: The checkpoint is damaged or of another run, or not the same for the whole
            team.
    """

    def draw_subnet(step: int) -> list[nn.Parameter]:
        paths = [random.Random(f"{seed}/step/{path}") for path in team.paths(step)]
        subnets = [supernet.space.sample(path) for path in paths]
        supernet.set_active_subnet(subnets[team.rank])
        return [] if team.alone else supernet.active_parameters(subnets)

    _fit(
        supernet,
        dict(supernet.trainable_parameters()),
        train,
        recipe,
        seed=seed,
        before_step=draw_subnet,
        team=team,
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )
    supernet.set_active_subnet(None)


def train_network(
    model: nn.Module,
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    checkpointing: Checkpointing | None = None,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> None:
    """Train every weight that requires a gradient, in place: of a plain network, or of one that a
    method of `supernet.methods` has adapted. Arguments and errors as in `train_supernet`.
    """
    _fit(
        model,
        {name: p for name, p in model.named_parameters() if p.requires_grad},
        train,
        recipe,
        seed=seed,
        before_step=lambda step: [],
        team=_ALONE,
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )


def make_optimizer(parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over `parameters`, as the recipe has it, in one kernel for all of them."""
    return torch.optim.AdamW(
        parameters.values(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    precision: Precision,
    before_update: Callable[[], None] | None = None,
) -> Tensor:
    """One step on one batch, with whatever is active in `model`; what is not has no gradient and
    stays as it is.

    Args:
        model: In training mode, on the device of the batch.
        optimizer: Of its trainable parameters.
        images: (b, c, h, w), normalised.
        labels: int64 (b,).
        precision: See `autocast`.
        before_update: Called when the gradients are there, before the optimizer takes them.

    Returns:
        The mean cross-entropy of the batch before the step, a scalar on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    with autocast(images.device, precision):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    if before_update is not None:
        before_update()
    optimizer.step()
    return loss.detach()


def _fit(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    before_step: Callable[[int], Sequence[nn.Parameter]],
    team: Team,
    checkpointing: Checkpointing | None,
    on_epoch: Callable[[EpochEnd], None] | None,
) -> None:
    device = next(iter(parameters.values())).device
    optimizer = make_optimizer(parameters, recipe)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs,
        lr_min=recipe.min_lr,
        warmup_t=min(recipe.warmup_epochs, recipe.epochs // 2),
        warmup_lr_init=recipe.warmup_lr,
    )
    first, identity = 0, _run_identity(checkpointing, recipe, seed, team)
    if checkpointing is not None and checkpointing.path.exists():
        first = restore_training(checkpointing.path, identity, parameters, optimizer)
        _log.info("resuming training after epoch %d of %d", first, recipe.epochs)
    if not team.agrees_on(first, device):
        raise CheckpointError("the processes that train together found different checkpoints")
    step_size = team.size * recipe.batch_size
    steps = math.ceil(len(train) / step_size)
    generators = [device] if device.type == "cuda" else []  # beside the CPU's: left as they were
    saved_at = time.monotonic()
    model.train()
    for epoch in range(first, recipe.epochs):
        schedule.step(epoch)
        shuffled = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
        order = torch.randperm(len(train), generator=shuffled)  # (images)
        losses: list[Tensor] = []
        batches = train.gather_each([team.share(part) for part in torch.split(order, step_size)])
        for step, (images, labels) in enumerate(batches, start=epoch * steps):
            trained = before_step(step)
            with fork_rng(generators):
                torch.manual_seed(derive_seed(seed, "step", team.path(step)))  # drop path, dropout
                images, labels = images.to(device), labels.to(device)
                loss = train_step(
                    model,
                    optimizer,
                    images,
                    labels,
                    precision=recipe.precision,
                    before_update=None if team.alone else partial(team.average_gradients, trained),
                )
                losses.append(loss)
        # One look an epoch: a look a step would make a GPU wait for the host.
        epoch_losses = team.average(torch.stack(losses).float()).tolist()
        _check_finite(epoch_losses, parameters, epoch * steps, checkpointing)
        if (
            checkpointing is not None
            and team.rank == 0
            and (epoch + 1 == recipe.epochs or time.monotonic() - saved_at >= checkpointing.every_s)
        ):
            metadata = {**identity, "epoch": str(epoch + 1)}
            save_training(checkpointing.path, metadata, parameters, optimizer)
            saved_at = time.monotonic()
            if checkpointing.on_write is not None:
                checkpointing.on_write(checkpointing.path)
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


def _run_identity(
    checkpointing: Checkpointing | None, recipe: Recipe, seed: int, team: Team
) -> dict[str, str]:
    given = {} if checkpointing is None else checkpointing.identity
    recipe_json = json.dumps(asdict(recipe), sort_keys=True)
    return {**given, "recipe": recipe_json, "seed": str(seed), "processes": str(team.size)}
