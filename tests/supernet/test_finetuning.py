"""Training a subnet on: only what is its own changes, the best epoch is kept, nothing is random."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from small_networks import digits, fill_support_tensors, filled_supernet, supernet_of
from torch import Tensor

from search_spaces import InvalidConfigError, LayerConfig, SubnetConfig
from supernet import EpochEnd, Recipe, Storage, Supernet, evaluate_model, train_network
from supernet.errors import CheckpointError, TrainingDivergedError
from supernet.export import subnet_export
from supernet.finetuning import Finetuned, finetune, finetune_averaged, with_tensors

RECIPE = Recipe(epochs=3, batch_size=16, lr=1e-2, warmup_epochs=1, warmup_lr=1e-3)
storages = pytest.mark.parametrize("storage", ["entangled", "separate"])


def inherited(storage: Storage = "entangled") -> Supernet:
    """Of small values, from which further training gains; with drop path, so that seeds count."""
    supernet = supernet_of(storage=storage, drop_path=0.1)
    fill_support_tensors(supernet, scale=0.05)
    return supernet


def drawn(supernet: Supernet, seed: int = 0) -> SubnetConfig:
    return supernet.space.sample(random.Random(seed))


def state_of(supernet: Supernet) -> dict[str, Tensor]:
    """Everything, the frozen weights included."""
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


def tuned(
    supernet: Supernet, subnet: SubnetConfig, *, seed: int = 5, **changes: float
) -> Finetuned:
    train, val = digits()
    recipe = dataclasses.replace(RECIPE, **changes)
    return finetune(supernet, subnet, train, val, recipe, seed=seed)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@storages
def test_only_the_subnets_own_tensors_change_and_only_in_the_copy(storage: Storage) -> None:
    supernet = inherited(storage)
    subnet = drawn(supernet)
    before, flags = state_of(supernet), [p.requires_grad for p in supernet.parameters()]
    found = tuned(supernet, subnet)
    assert found.epoch > 0, "else the test shows nothing"
    assert same(state_of(supernet), before)
    assert [p.requires_grad for p in supernet.parameters()] == flags
    assert (supernet.active_subnet, supernet.training) == (None, False)
    after = state_of(found.supernet)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = {id(p) for p in found.supernet.active_parameters([subnet])}
    named = {n: p for n, p in found.supernet.named_parameters() if id(p) in own}
    assert changed <= named.keys()
    assert any("head" in name for name in changed)
    assert any(name.endswith("_down") for name in changed)
    assert {f"backbone.{name}" for name in found.tensors} == named.keys()
    assert [p.requires_grad for p in found.supernet.parameters()] == flags
    assert found.supernet.active_subnet == subnet


def test_the_epoch_with_the_lowest_val_loss_is_kept() -> None:
    """The losses and weights of all epochs by hand; at this rate the first is the best."""
    supernet = inherited()
    subnet = drawn(supernet)
    train, val = digits()
    recipe = dataclasses.replace(RECIPE, epochs=5, lr=0.5)
    by_hand = [(evaluate_model(supernet.merge(subnet), val).loss, supernet.trainable_state())]
    network = with_tensors(supernet, subnet, {})

    def look(_: EpochEnd) -> None:
        loss = evaluate_model(network.merge(), val).loss
        by_hand.append((loss, {k: t.clone() for k, t in network.trainable_state().items()}))

    train_network(network, train, recipe, seed=5, on_epoch=look)
    losses = [loss for loss, _ in by_hand]
    best = losses.index(min(losses))
    assert 0 < best < recipe.epochs
    ends: list[EpochEnd] = []
    found = finetune(supernet, subnet, train, val, recipe, seed=5, on_epoch=ends.append)
    assert [end.epoch for end in ends] == list(range(1, recipe.epochs + 1))
    assert found.epoch == best
    assert (found.before.loss, found.after.loss) == (losses[0], losses[best])
    expected = by_hand[best][1]
    assert all(torch.equal(expected[name], t) for name, t in found.tensors.items())
    merged = evaluate_model(found.supernet.merge(subnet), val)
    assert (merged.loss, merged.top1) == (found.after.loss, found.after.top1)


def test_the_mean_over_epochs_and_trainings_is_kept_at_a_rate_that_stays() -> None:
    """By hand: over the second half of each training; the rate is the peak after the warm-up."""
    supernet = inherited()
    subnet = drawn(supernet)
    train, val = digits()
    recipe = dataclasses.replace(RECIPE, epochs=5)
    seen: list[dict[str, Tensor]] = []
    for seed in (5, 6):
        network = with_tensors(supernet, subnet, {})

        def look(end: EpochEnd, network: Supernet = network) -> None:
            if end.epoch > 2:
                state = network.trainable_state().items()
                seen.append({name: tensor.double().clone() for name, tensor in state})

        train_network(
            network,
            train,
            dataclasses.replace(recipe, min_lr=recipe.lr),
            seed=seed,
            on_epoch=look,
        )
    ends: list[EpochEnd] = []
    found = finetune_averaged(
        supernet, subnet, train, val, recipe, seeds=(5, 6), on_epoch=ends.append
    )
    assert [(end.epoch, end.epochs) for end in ends] == [(n, 10) for n in range(1, 11)]
    assert [end.lr for end in ends] == 2 * [recipe.warmup_lr, *[recipe.lr] * 4]
    assert found.epoch == 5
    assert any(name.endswith("_down") for name in found.tensors)
    for name, tensor in found.tensors.items():
        mean = torch.stack([state[name] for state in seen]).mean(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-7)
    merged = evaluate_model(found.supernet.merge(subnet), val)
    assert (merged.loss, merged.top1) == (found.after.loss, found.after.top1)
    before = evaluate_model(supernet.merge(subnet), val)
    assert (before.loss, before.top1) == (found.before.loss, found.before.top1)
    one = finetune_averaged(
        supernet, subnet, train, val, dataclasses.replace(recipe, epochs=1), seeds=[5]
    )
    own = {id(p) for p in found.supernet.active_parameters([subnet])}
    names = {name for name, p in found.supernet.trainable_parameters() if id(p) in own}
    assert one.tensors.keys() == found.tensors.keys() == names
    assert all(torch.isfinite(tensor).all() for tensor in one.tensors.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_val_loss_never_rises(seed: int) -> None:
    """A rate that spoils every epoch leaves the inherited weights, bit for bit."""
    supernet = inherited()
    subnet = drawn(supernet, seed)
    before = supernet.trainable_state()
    spoilt = tuned(supernet, subnet, lr=3.0, warmup_lr=3.0, weight_decay=0.0)
    assert spoilt.epoch == 0
    assert spoilt.after == spoilt.before
    assert same(dict(spoilt.supernet.trainable_state()), dict(before))
    found = tuned(supernet, subnet, lr=0.1)
    assert found.after.loss <= found.before.loss


@pytest.mark.parametrize("lr", [1e6, 1e9, 1e12])
def test_an_epoch_without_a_loss_is_worse_than_any_other(lr: float) -> None:
    """Weights may still be finite where the val loss is not; the inherited ones stay then."""
    supernet = supernet_of()
    found = tuned(supernet, drawn(supernet), epochs=1, batch_size=64, lr=lr)
    assert (found.epoch, found.after) == (0, found.before)


@pytest.mark.slow
def test_it_is_a_function_of_the_seed() -> None:
    """And leaves the process's own generator as it was."""
    supernet = inherited()
    subnet = drawn(supernet)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = tuned(supernet, subnet)
    assert torch.equal(torch.rand(1), expected)
    supernet.set_active_subnet(supernet.space.max_subnet())
    again, other = tuned(supernet, subnet), tuned(supernet, subnet, seed=6)
    assert same(dict(first.tensors), dict(again.tensors))
    assert first.epoch == again.epoch
    assert not same(dict(first.tensors), dict(other.tensors))


@pytest.mark.slow
@storages
def test_the_tensors_are_all_that_is_needed_to_make_it_again(storage: Storage) -> None:
    supernet = inherited(storage)
    subnet = drawn(supernet)
    found = tuned(supernet, subnet)
    again = with_tensors(supernet, subnet, found.tensors)
    assert same(dict(again.trainable_state()), dict(found.supernet.trainable_state()))
    with pytest.raises(CheckpointError, match="of another network"):
        with_tensors(supernet, subnet, {"blocks.9.attn.qkv.A_down": torch.zeros(1)})


@storages
def test_its_export_is_what_was_trained(storage: Storage) -> None:
    """Merged and unmerged logits agree, and the adapter holds the tuned tensors."""
    supernet = filled_supernet(storage=storage)
    subnet = drawn(supernet)
    found = tuned(supernet, subnet)
    exportable = subnet_export(found.supernet, subnet)
    _, val = digits()
    assert exportable.logit_difference(val) < 1e-4
    inherited_tensors = subnet_export(supernet, subnet).adapter
    assert exportable.adapter.keys() == inherited_tensors.keys()
    assert found.epoch == 0 or not same(dict(exportable.adapter), dict(inherited_tensors))


def test_what_cannot_be_trained_is_refused() -> None:
    supernet = inherited()
    with pytest.raises(InvalidConfigError):
        tuned(supernet, SubnetConfig({"blocks.9.attn.qkv": LayerConfig()}))
    with pytest.raises(TrainingDivergedError):
        tuned(supernet, drawn(supernet), lr=1e30, warmup_lr=1e30)
