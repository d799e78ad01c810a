"""Training: at every step a random subnet, gradients through its support tensors and the head.

The published recipe (GLoRA, arXiv 2306.07967, section 4 and its code): AdamW, cosine schedule with
warm-up, drop path, cross-entropy, no augmentation, uniform paths. `supernet.recipes` has the other
recipes and designs. All that is random is a function of the seed and of the epoch or step, so a run
that was interrupted and resumed ends with the weights of one that was not.

W processes that train together take W paths a step: each draws a subnet of its own, takes
`batch_size` images of its own out of the epoch's order, and the gradients are averaged. So a step
sees W * batch_size images and an epoch has a W-th of the steps. A design may divide the images of a
process among several paths.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch.random import fork_rng

from search_spaces import SUPPORTS
from supernet.averaging import Team
from supernet.data import Split
from supernet.errors import CheckpointError, TrainingDivergedError
from supernet.evaluation import Precision, autocast
from supernet.initialisation import start_at_gradients
from supernet.network import Supernet
from supernet.recipes import Design, Recipe, identity_of
from supernet.shifting import shifted
from supernet.steps import NetworkPasses, Passes, SupernetPasses
from supernet.training_checkpoints import Checkpointing, restore_training, save_training
from supernet.weight_average import WeightAverage

__all__ = [
    "Checkpointing",
    "Design",
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
_PUBLISHED: Final = Design()


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
    design: Design = _PUBLISHED,
    team: Team = _ALONE,
    checkpointing: Checkpointing | None = None,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> None:
    """Train support tensors and head in place.

    Args:
        supernet: On the device where it trains; its frozen weights do not change.
        train: The training split, on the same device or on the CPU.
        recipe: Epochs, learning rates and so on.
        seed: Of batches, subnets and drop path.
        design: Which subnets each step takes, and how. A uniform random one if not given.
        team: The processes that train together; all of them call this with the same arguments, and
            end with the same weights.
        checkpointing: Resume from there if there is a checkpoint, and write one now and then; of a
            team every process reads the file and the first one writes it.
        on_epoch: Called after each epoch, for progress bars; the weights are then what they would
            be if the training ended.

    Raises:
        TrainingDivergedError: A loss is not finite; the last checkpoint is of a finite epoch.
        CheckpointError: The checkpoint is damaged or of another run, or not the same for the whole
            team.
    """
    if design.init == "gradient" and not _has_begun(checkpointing):
        start_at_gradients(supernet, train, batch_size=recipe.batch_size, seed=seed)
    for layer in supernet.layers.values():
        layer.noise = design.noise
    _fit(
        supernet,
        dict(supernet.trainable_parameters()),
        train,
        recipe,
        seed=seed,
        design=design,
        passes=SupernetPasses(supernet, recipe, design, seed=seed, team=team),
        team=team,
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )
    for layer in supernet.layers.values():
        layer.noise = 0.0
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
        design=_PUBLISHED,
        passes=NetworkPasses(model, recipe),
        team=_ALONE,
        checkpointing=checkpointing,
        on_epoch=on_epoch,
    )


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    recipe: Recipe,
    lr_factors: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW over `parameters`, as the recipe has it, in one kernel for all of one learning rate.

    Args:
        parameters: Of a supernet by name, where there are factors.
        recipe: Its learning rate and weight decay.
        lr_factors: As in a design.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(_lr_factor(name, lr_factors or {}), []).append(parameter)
    return torch.optim.AdamW(
        # The largest group comes first: progress reports show the rate of the first group.
        [
            {"params": group, "lr": recipe.lr * factor}
            for factor, group in sorted(groups.items(), key=lambda item: -len(item[1]))
        ],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _lr_factor(name: str, factors: Mapping[str, float]) -> float:
    """The product of the factors of all kinds that a tensor of a supernet is of."""
    if not factors:
        return 1.0
    tensor = name.rpartition(".")[2]
    support, _, part = tensor.partition("_")
    kinds = {support, part} if support in SUPPORTS else {"head"}
    return math.prod(factor for kind, factor in factors.items() if kind in kinds)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    precision: Precision,
) -> Tensor:
    """One step on one batch, with whatever is active in `model`; what is not has no gradient and
    stays as it is.

    Args:
        model: In training mode, on the device of the batch.
        optimizer: Of its trainable parameters.
        images: (b, c, h, w), normalised.
        labels: int64 (b,).
        precision: See `autocast`.

    Returns:
        The mean cross-entropy of the batch before the step, a scalar on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    with autocast(images.device, precision):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _fit(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    design: Design,
    passes: Passes,
    team: Team,
    checkpointing: Checkpointing | None,
    on_epoch: Callable[[EpochEnd], None] | None,
) -> None:
    device = next(iter(parameters.values())).device
    optimizer = make_optimizer(parameters, recipe, design.lr_factors)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs,
        lr_min=recipe.min_lr,
        warmup_t=min(recipe.warmup_epochs, recipe.epochs // 2),
        warmup_lr_init=recipe.warmup_lr,
    )
    average = WeightAverage(parameters, recipe.ema) if recipe.ema else None
    averaged = {} if average is None else average.state
    first, identity = 0, _run_identity(checkpointing, recipe, design, seed, team)
    if checkpointing is not None and checkpointing.path.exists():
        first = restore_training(checkpointing.path, identity, parameters, optimizer, averaged)
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
            optimizer.zero_grad(set_to_none=True)
            with fork_rng(generators):
                torch.manual_seed(derive_seed(seed, "step", team.path(step)))  # drop path, dropout
                images, labels = images.to(device), labels.to(device)
                if recipe.shift:
                    images = shifted(images, recipe.shift)
                losses.append(passes(step, images, labels))
            if not team.alone:
                team.average_gradients(passes.trained(step))
            optimizer.step()
            if average is not None:
                average.update(step)
        # Losses are read once an epoch: reading them each step would make the GPU wait.
        epoch_losses = team.average(torch.stack(losses).float()).tolist()
        _check_finite(epoch_losses, parameters, epoch * steps, checkpointing)
        if (
            checkpointing is not None
            and team.rank == 0
            and (epoch + 1 == recipe.epochs or time.monotonic() - saved_at >= checkpointing.every_s)
        ):
            metadata = {**identity, "epoch": str(epoch + 1)}
            save_training(checkpointing.path, metadata, parameters, optimizer, averaged)
            saved_at = time.monotonic()
            if checkpointing.on_write is not None:
                checkpointing.on_write(checkpointing.path)
        if on_epoch is not None:
            with _in_place(average):
                on_epoch(
                    EpochEnd(
                        epoch=epoch + 1,
                        epochs=recipe.epochs,
                        loss=sum(epoch_losses) / len(epoch_losses),
                        lr=optimizer.param_groups[0]["lr"],
                    )
                )
    if average is not None:
        average.swap()
    model.eval()


@contextmanager
def _in_place(average: WeightAverage | None) -> Iterator[None]:
    """Have the average, if there is one, in the place of the weights."""
    if average is None:
        yield
        return
    average.swap()
    try:
        yield
    finally:
        average.swap()


def _has_begun(checkpointing: Checkpointing | None) -> bool:
    return checkpointing is not None and checkpointing.path.exists()


@torch.no_grad()
def _check_finite(
    losses: list[float],
    parameters: Mapping[str, nn.Parameter],
    first_step: int,
    checkpointing: Checkpointing | None,
) -> None:
    """Raise TrainingDivergedError unless all losses of an epoch and all weights are finite. The
    last step can make weights non-finite after its loss was computed.
    """
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
    checkpointing: Checkpointing | None, recipe: Recipe, design: Design, seed: int, team: Team
) -> dict[str, str]:
    identity = {} if checkpointing is None else dict(checkpointing.identity)
    identity |= {"recipe": identity_of(recipe), "seed": str(seed), "processes": str(team.size)}
    if design != _PUBLISHED:
        identity["design"] = identity_of(design)
    return identity
