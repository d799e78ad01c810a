"""Train a subnet on from the weights that it inherits, with early stopping by the val loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces import SubnetConfig
from supernet.data import Split
from supernet.evaluation import Evaluation, NonFiniteLossError, evaluate_model
from supernet.network import Supernet
from supernet.recipes import Recipe
from supernet.training import EpochEnd, train_network


@dataclass(frozen=True, eq=False, kw_only=True)
class Finetuned:
    """A subnet that was trained on.

    Args:
        supernet: A copy in which this subnet alone is trained further; it is active.
        tensors: What was trained: the support tensors of this subnet and the head, as they are
            named and stored in the supernet. `with_tensors` makes the copy of them again.
        epoch: After which epoch the val loss was lowest; 0 where no epoch improved it.
        before: Figures on the validation split with the inherited weights, merged.
        after: Those with the weights kept.
    """

    supernet: Supernet
    tensors: Mapping[str, Tensor]
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
        train: The training split, on the device of the supernet or on the CPU.
        val: The validation split, likewise.
        recipe: Of the further training; its schedule runs over `recipe.epochs`.
        seed: Of batches and drop path.
        batch_size: Images a forward of an evaluation.
        on_epoch: Called after each epoch.

    Raises:
        InvalidConfigError: `subnet` does not belong to the supernet's space.
        TrainingDivergedError: The loss stopped being finite.
    """
    tuned = with_tensors(supernet, subnet, {})
    trainable = dict(tuned.trainable_parameters())
    active = {id(parameter) for parameter in tuned.active_parameters([subnet])}
    parameters = {name: p for name, p in trainable.items() if id(p) in active}

    def measured() -> Evaluation:
        # Merged, as an export is: what is compared here is what is written in the end.
        return evaluate_model(tuned.merge(subnet), val, batch_size=batch_size)

    before = best = measured()
    kept, kept_epoch = _copied(parameters), 0

    def look(end: EpochEnd) -> None:
        nonlocal best, kept, kept_epoch
        with suppress(NonFiniteLossError):  # an epoch that is lost is worse than any other
            found = measured()
            if found.loss < best.loss:
                best, kept, kept_epoch = found, _copied(parameters), end.epoch
        if on_epoch is not None:
            on_epoch(end)

    for name, parameter in trainable.items():
        parameter.requires_grad_(name in parameters)
    train_network(tuned, train, recipe, seed=seed, on_epoch=look)
    for parameter in trainable.values():
        parameter.requires_grad_(True)
    tuned.load_trainable_state({**tuned.trainable_state(), **kept})
    return Finetuned(
        supernet=tuned.eval(), tensors=kept, epoch=kept_epoch, before=before, after=best
    )


def with_tensors(
    supernet: Supernet, subnet: SubnetConfig, tensors: Mapping[str, Tensor]
) -> Supernet:
    """A copy of a supernet, in evaluation mode, with other values in some of its tensors.

    Args:
        supernet: It is not changed.
        subnet: Becomes active in the copy.
        tensors: By name, such as those of `Finetuned`.

    Raises:
        InvalidConfigError: `subnet` does not belong to the supernet's space.
        CheckpointError: Names or shapes are not the supernet's.
    """
    tuned = copy.deepcopy(supernet).eval()
    tuned.set_active_subnet(subnet)
    tuned.load_trainable_state({**tuned.trainable_state(), **tensors})
    return tuned


def _copied(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}
