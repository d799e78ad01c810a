"""Train a subnet on from the weights that it inherits: keep the epoch with the lowest val loss, or
the mean of the weights over epochs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
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
        epoch: After which epoch the val loss was lowest, 0 where no epoch improved it; of a mean
            over epochs, the last one.
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

    def measured() -> Evaluation:
        # Merged, as an export is: what is compared here is what is written in the end.
        return evaluate_model(tuned.merge(subnet), val, batch_size=batch_size)

    before = best = measured()
    with _only(tuned, subnet) as parameters:
        kept, kept_epoch = _copied(parameters), 0

        def look(end: EpochEnd) -> None:
            nonlocal best, kept, kept_epoch
            with suppress(NonFiniteLossError):  # an epoch that is lost is worse than any other
                found = measured()
                if found.loss < best.loss:
                    best, kept, kept_epoch = found, _copied(parameters), end.epoch
            if on_epoch is not None:
                on_epoch(end)

        train_network(tuned, train, recipe, seed=seed, on_epoch=look)
    tuned.load_trainable_state({**tuned.trainable_state(), **kept})
    return Finetuned(
        supernet=tuned.eval(), tensors=kept, epoch=kept_epoch, before=before, after=best
    )


def finetune_averaged(
    supernet: Supernet,
    subnet: SubnetConfig,
    train: Split,
    val: Split,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    batch_size: int = 256,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> Finetuned:
    """Train the support tensors of one subnet and the head several times, each time from the
    inherited weights and at a rate that stays high; keep the mean of their values after each epoch
    of the second half of every training.

    Averages over one training are those of Izmailov et al. 2018 (arXiv 1803.05407), over several
    those of Gupta et al. 2020 (arXiv 2001.02312). Nothing is chosen by the validation split, so the
    val loss may rise.

    Args:
        supernet: As in `finetune`.
        subnet: Likewise.
        train: Likewise.
        val: Likewise; for `before` and `after` alone.
        recipe: Of each training; after the warm-up its rate is `lr`, whatever `min_lr` is.
        seeds: Of batches and drop path, a training each; one or more.
        batch_size: As in `finetune`.
        on_epoch: Called after each epoch; its numbers go on from one training to the next.

    Returns:
        `epoch` is the last one of a training.

    Raises:
        InvalidConfigError: As in `finetune`.
        TrainingDivergedError: Likewise.
        NonFiniteLossError: The val loss of the mean is not finite.
    """
    tuned = with_tensors(supernet, subnet, {})
    before = evaluate_model(tuned.merge(subnet), val, batch_size=batch_size)
    flat = dataclasses.replace(recipe, min_lr=recipe.lr)
    inherited = _copied(dict(tuned.trainable_parameters()))
    means: dict[str, Tensor] = {}
    taken = done = 0
    with _only(tuned, subnet) as parameters:

        def take_in(end: EpochEnd) -> None:
            nonlocal taken
            if end.epoch > recipe.epochs // 2:
                taken += 1
                for name, value in _copied(parameters).items():
                    means[name] = torch.lerp(means.get(name, value), value, 1 / taken)
            if on_epoch is not None:
                epochs = len(seeds) * recipe.epochs
                on_epoch(dataclasses.replace(end, epoch=done + end.epoch, epochs=epochs))

        for seed in seeds:
            tuned.load_trainable_state({name: inherited[name] for name in parameters})
            train_network(tuned, train, flat, seed=seed, on_epoch=take_in)
            done += recipe.epochs
    tuned.load_trainable_state({**inherited, **means})
    after = evaluate_model(tuned.merge(subnet), val, batch_size=batch_size)
    return Finetuned(
        supernet=tuned.eval(), tensors=means, epoch=recipe.epochs, before=before, after=after
    )


@contextmanager
def _only(tuned: Supernet, subnet: SubnetConfig) -> Iterator[dict[str, nn.Parameter]]:
    """Have the subnet's own parameters be trained, and nothing else; they are given by name."""
    trainable = dict(tuned.trainable_parameters())
    active = {id(parameter) for parameter in tuned.active_parameters([subnet])}
    for parameter in trainable.values():
        parameter.requires_grad_(id(parameter) in active)
    yield {name: p for name, p in trainable.items() if id(p) in active}
    for parameter in trainable.values():
        parameter.requires_grad_(True)


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
