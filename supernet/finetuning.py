"""Train a subnet on from the weights that it inherits, with early stopping by the val loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces import SubnetConfig
from supernet.data import Split
from supernet.evaluation import Evaluation, evaluate_model
from supernet.network import Supernet
from supernet.recipes import Recipe
from supernet.training import EpochEnd, train_network


@dataclass(frozen=True, eq=False, kw_only=True)
class Finetuned:
    """A subnet that was trained on.

    Args:
        supernet: A copy in which this subnet alone is trained further; it is active.
        epoch: After which epoch the val loss was lowest; 0 where no epoch improved it.
        before: Figures on the validation split with the inherited weights.
        after: Those with the weights kept.
    """

    supernet: Supernet
    epoch: int
    before: Evaluation
    after: Evaluation


def finetune(
    supernet: Supernet,
    subnet: SubnetConfig,
    train: Split,
    val: Split,
    recipe: Recipe,
    *,
    seed: int,
    batch_size: int = 256,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> Finetuned:
    """Train the support tensors of one subnet and the head; keep the epoch with the lowest val
    loss. The inherited weights are one of the candidates, so the loss never rises.

    Args:
        supernet: Trained; it is not changed.
        subnet: Of its space.
        train: The training split.
        val: The validation split, on the device of the supernet.
        recipe: Of the further training; its schedule runs over `recipe.epochs`.
        seed: Of batches and drop path.
        batch_size: Images a forward of an evaluation.
        on_epoch: Called after each epoch.

    Raises:
        InvalidConfigError: `subnet` does not belong to the supernet's space.
        TrainingDivergedError: The loss stopped being finite.
    """
    tuned = copy.deepcopy(supernet)
    tuned.set_active_subnet(subnet)
    active = {id(p) for p in tuned.active_parameters([subnet])}
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in tuned.trainable_parameters():
        parameter.requires_grad_(id(parameter) in active)
        if parameter.requires_grad:
            parameters[name] = parameter
    before = best = evaluate_model(tuned.eval(), val, batch_size=batch_size)
    kept, kept_epoch = _copied(parameters), 0

    def look(end: EpochEnd) -> None:
        nonlocal best, kept, kept_epoch
        found = evaluate_model(tuned.eval(), val, batch_size=batch_size)
        tuned.train()
        if found.loss < best.loss:
            best, kept, kept_epoch = found, _copied(parameters), end.epoch
        if on_epoch is not None:
            on_epoch(end)

    train_network(tuned, train, recipe, seed=seed, on_epoch=look)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(kept[name])
    for _, parameter in tuned.trainable_parameters():
        parameter.requires_grad_(True)
    return Finetuned(supernet=tuned.eval(), epoch=kept_epoch, before=before, after=best)


def _copied(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}
