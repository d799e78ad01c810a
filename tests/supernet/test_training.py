"""Training: the same weights whatever interrupts it, and a stop where the loss is lost."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import DIGITS, EVA, backbone_of, digits, space_of, supernet_of
from torch import Tensor, nn

from search_spaces import SubnetConfig
from supernet import (
    Checkpointing,
    EpochEnd,
    Recipe,
    Supernet,
    TensorSplit,
    evaluate_model,
    train_network,
    train_supernet,
)
from supernet.checkpoints import load_checkpoint, save_checkpoint
from supernet.errors import CheckpointError, TrainingDivergedError
from supernet.training import derive_seed

RECIPE = Recipe(epochs=5, batch_size=16, lr=5e-3, warmup_epochs=2)
STEPS_AN_EPOCH = 3  # 40 images in batches of 16, 16 and 8
IDENTITY = {"backbone": "a backbone", "space": "a space"}


class StopError(Exception):
    """What a test interrupts with, as Ctrl-C would."""


def trained_state(supernet: Supernet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in supernet.trainable_state().items()}


def train(
    supernet: Supernet,
    *,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    path: Path | None = None,
    identity: dict[str, str] = IDENTITY,
    every_s: float = 0.0,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> dict[str, Tensor]:
    """The trained tensors; with a path, checkpoints are kept there."""
    kept = None
    if path is not None:
        kept = Checkpointing(path=path, every_s=every_s, identity=identity)
    train_supernet(supernet, digits()[0], recipe, seed=seed, checkpointing=kept, on_epoch=on_epoch)
    return trained_state(supernet)


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def stopping_after(epoch: int) -> Callable[[EpochEnd], None]:
    def on_epoch(end: EpochEnd) -> None:
        if end.epoch == epoch:
            raise StopError

    return on_epoch


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(1,), (4,), (2, 3), (5,)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    stops: tuple[int, ...], tmp_path: Path
) -> None:
    """To the last bit, drop path and optimizer state included, in whatever process it resumes."""
    expected = train(supernet_of(drop_path=0.3))
    path = tmp_path / "unfinished.safetensors"
    for stop in stops:
        with pytest.raises(StopError):
            train(supernet_of(drop_path=0.3), path=path, on_epoch=stopping_after(stop))
    epochs: list[int] = []
    resumed = train(
        supernet_of(drop_path=0.3), path=path, on_epoch=lambda end: epochs.append(end.epoch)
    )
    assert epochs == list(range(stops[-1] + 1, 6)), "finished epochs are not repeated"
    assert not differing(resumed, expected)


def test_an_interruption_within_an_epoch_costs_that_epoch_alone(tmp_path: Path) -> None:
    """A kill comes at any step: the weights in the file are those of a whole epoch."""
    expected = train(supernet_of(drop_path=0.3))
    path = tmp_path / "unfinished.safetensors"
    supernet = supernet_of(drop_path=0.3)
    choose, calls = supernet.set_active_subnet, iter(range(100))

    def stop_at_step_10(subnet: SubnetConfig | None) -> None:
        if next(calls) == 10:
            raise StopError
        choose(subnet)

    supernet.set_active_subnet = stop_at_step_10  # type: ignore[method-assign]
    with pytest.raises(StopError):
        train(supernet, path=path)
    epochs: list[int] = []
    resumed = train(
        supernet_of(drop_path=0.3), path=path, on_epoch=lambda end: epochs.append(end.epoch)
    )
    assert epochs == [4, 5]
    assert not differing(resumed, expected)


def test_a_backbone_resumes_as_well(tmp_path: Path) -> None:
    """The demo pretrains one, and may be interrupted there."""
    states = []
    for stop in (None, 3):
        kept = Checkpointing(path=tmp_path / f"{stop}.st", every_s=0.0, identity=IDENTITY)
        for on_epoch in [stopping_after(stop), None] if stop else [None]:
            model = backbone_of(DIGITS, drop_path=0.3)
            try:
                train_network(
                    model, digits()[0], RECIPE, seed=0, checkpointing=kept, on_epoch=on_epoch
                )
            except StopError:
                continue
        states.append(model.state_dict())
    assert not differing(*states)


def test_checkpoints_are_written_when_they_are_due(tmp_path: Path) -> None:
    """Now and then, and always at the end."""
    path = tmp_path / "new" / "unfinished.safetensors"
    there: list[bool] = []
    train(supernet_of(), path=path, every_s=3600, on_epoch=lambda _: there.append(path.exists()))
    assert there == [False, False, False, False, True]
    _, metadata = load_checkpoint(path)
    assert metadata["epoch"] == "5"
    assert metadata.items() >= IDENTITY.items()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": dataclasses.replace(RECIPE, lr=1e-3)}, "recipe"),
        ({"identity": {**IDENTITY, "space": "another"}}, "space: a space there, another here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """A mixture of two runs would be nobody's result."""
    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(StopError):
        train(supernet_of(), path=path, on_epoch=stopping_after(2))
    before = path.read_bytes()
    supernet = supernet_of()
    untrained = trained_state(supernet)
    with pytest.raises(CheckpointError, match=told):
        train(supernet, path=path, **changes)
    assert path.read_bytes() == before
    assert not differing(trained_state(supernet), untrained)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """Also where its identity does not tell: a scalar would broadcast into any shape."""
    path = tmp_path / "unfinished.safetensors"
    train(supernet_of(), path=path)
    tensors, metadata = load_checkpoint(path)
    for wrong in ({}, {"model/head.bias": torch.zeros(())}, {"model/more": torch.zeros(3)}):
        changed = {**tensors, **wrong} if wrong else {}
        save_checkpoint(path, changed, metadata)
        with pytest.raises(CheckpointError, match="another network"):
            train(supernet_of(), path=path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.safetensors"
    train(supernet_of(), path=path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        train(supernet_of(), path=path)


# The seed


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (train(supernet_of(drop_path=0.3), seed=s) for s in (0, 0, 1))
    assert not differing(first, again)
    assert differing(first, other) == list(first)


def test_the_state_of_the_process_decides_nothing() -> None:
    """Neither before nor during the run; and training leaves that state as it was."""
    expected = train(supernet_of(drop_path=0.3))

    def disturb(end: EpochEnd) -> None:
        torch.manual_seed(end.epoch)
        np.random.seed(end.epoch)
        random.seed(end.epoch)

    disturb(EpochEnd(epoch=99, epochs=99, loss=0.0, lr=0.0))
    assert not differing(train(supernet_of(drop_path=0.3), on_epoch=disturb), expected)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    train(supernet_of(drop_path=0.3))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_drop_path_acts_while_training() -> None:
    """Else the tests above would not cover it."""
    assert differing(train(supernet_of(drop_path=0.3)), train(supernet_of()))


def test_derived_seeds_are_a_function_of_their_parts() -> None:
    assert derive_seed(0, "step", 1) == derive_seed(0, "step", 1)
    seeds = {derive_seed(s, kind, n) for s in range(5) for kind in ("a", "b") for n in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)


# What trains


def test_frozen_weights_do_not_change_and_all_others_do() -> None:
    """Weight decay would move what gets no gradient, so there is none here."""
    supernet = supernet_of(drop_path=0.2)
    before = copy.deepcopy(supernet.state_dict())
    trained = {f"backbone.{name}" for name, _ in supernet.trainable_parameters()}
    train(supernet, recipe=dataclasses.replace(RECIPE, epochs=20, weight_decay=0.0))
    after = supernet.state_dict()
    unchanged = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert unchanged == set(before) - trained
    assert supernet.active_subnet is None
    assert not supernet.training


@pytest.mark.slow
def test_every_step_draws_a_subnet_of_the_space() -> None:
    """Uniformly: over a hundred steps every token of every gene has been active."""
    supernet = supernet_of()
    drawn: list[SubnetConfig] = []
    choose = supernet.set_active_subnet

    def record(subnet: SubnetConfig | None) -> None:
        if subnet is not None:
            drawn.append(subnet)
        choose(subnet)

    supernet.set_active_subnet = record  # type: ignore[method-assign]
    epochs = 35
    train(supernet, recipe=dataclasses.replace(RECIPE, epochs=epochs))
    assert len(drawn) == epochs * STEPS_AN_EPOCH
    assert len(set(drawn)) == len(drawn)
    seen = defaultdict(set)
    for subnet in drawn:
        supernet.space.validate(subnet)
        for gene, token in subnet.to_params().items():
            seen[gene].add(token)
    assert {gene.name: set(gene.choices) for gene in supernet.space.genes} == seen


class RecordOrder:
    """A split that notes which images it was asked for; everything else is the split's."""

    def __init__(self, split: Any) -> None:
        self.split, self.asked = split, list[list[int]]()

    def __len__(self) -> int:
        return len(self.split)

    def gather_each(self, batches: Any) -> Any:
        batches = list(batches)
        self.asked += [batch.tolist() for batch in batches]
        return self.split.gather_each(batches)


def test_an_epoch_sees_every_image_once_in_an_order_of_its_own() -> None:
    """The last batch takes the remainder; the order is a function of seed and epoch."""
    orders = []
    for seed in (0, 0, 1):
        split: Any = RecordOrder(digits()[0])
        train_network(backbone_of(DIGITS), split, RECIPE, seed=seed)
        assert [len(batch) for batch in split.asked] == [16, 16, 8] * 5
        epochs = [tuple(itertools.chain(*split.asked[k : k + 3])) for k in range(0, 15, 3)]
        assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
        assert len({*epochs, tuple(range(40))}) == 6, "each epoch is shuffled anew"
        orders.append(epochs)
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@pytest.mark.slow
def test_training_learns() -> None:
    """Real digits on a random backbone: the loss falls well below that of guessing."""
    losses: list[float] = []
    supernet = supernet_of()
    train(
        supernet,
        recipe=dataclasses.replace(RECIPE, epochs=80, lr=1e-2),
        on_epoch=lambda end: losses.append(end.loss),
    )
    assert losses[-1] < 0.5 * math.log(5)
    before = evaluate_model(supernet_of().plain(), digits()[1])
    supernet.set_active_subnet(supernet.space.max_subnet())
    after = evaluate_model(supernet.merge(supernet.space.max_subnet()), digits()[1])
    assert after.top1 > before.top1 + 0.2


def test_the_loss_of_an_epoch_is_that_of_its_images() -> None:
    """A space of `none` alone, nothing learnt: the number must be the evaluation's."""
    model = backbone_of(DIGITS)
    expected = evaluate_model(model, digits()[0]).loss
    space = space_of(model, DIGITS, **{support: ["none"] for support in "ABCDE"})
    ends: list[EpochEnd] = []
    recipe = Recipe(epochs=2, batch_size=20, lr=0.0, warmup_lr=0.0, min_lr=0.0)
    train(Supernet(model, space), recipe=recipe, on_epoch=ends.append)
    assert [(end.epoch, end.epochs) for end in ends] == [(1, 2), (2, 2)]
    assert [end.loss for end in ends] == pytest.approx([expected, expected], abs=1e-5)


def test_a_backbone_trains_all_its_weights() -> None:
    model = backbone_of(DIGITS)
    before = copy.deepcopy(model.state_dict())
    train_network(model, digits()[0], dataclasses.replace(RECIPE, weight_decay=0.0), seed=0)
    assert differing(before, model.state_dict()) == list(before)
    assert not model.training


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_mixed_precision_keeps_the_weights_in_float32(precision: Any) -> None:
    """Autocast changes how products are computed, not what is stored."""
    supernet = supernet_of()
    losses: list[float] = []
    recipe = dataclasses.replace(RECIPE, precision=precision, epochs=20)
    state = train(supernet, recipe=recipe, on_epoch=lambda end: losses.append(end.loss))
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert losses[-1] < losses[0]
    full = train(supernet_of(), recipe=dataclasses.replace(recipe, precision="auto"))
    assert bool(differing(state, full)) == (precision == "bf16"), "auto is float32 on a CPU"


def test_attention_that_adds_its_bias_apart_trains() -> None:
    """EVA adds the bias of q and v in place to what the adapted layer has given."""
    supernet = supernet_of(EVA)
    supernet.set_active_subnet(supernet.space.max_subnet())
    supernet.train()(torch.ones(2, 3, 28, 28)).square().sum().backward()
    qkv = supernet.layers["blocks.0.attn.qkv"]
    assert qkv.A_down.grad.abs().sum() > 0
    assert qkv.B_down.grad.abs().sum() > 0


# The schedule


def test_the_schedule_is_a_warm_up_and_a_cosine() -> None:
    recipe = Recipe(epochs=12, batch_size=40, lr=1.0, warmup_epochs=4, warmup_lr=0.1, min_lr=0.01)
    rates: list[float] = []
    train(supernet_of(), recipe=recipe, on_epoch=lambda end: rates.append(end.lr))
    warm = [0.1, 0.325, 0.55, 0.775]
    cosine = [0.01 + 0.99 * (1 + math.cos(math.pi * t / 12)) / 2 for t in range(4, 12)]
    assert rates == pytest.approx(warm + cosine)


@pytest.mark.parametrize(("epochs", "first"), [(1, 1.0), (3, 0.1), (4, 0.1)])
def test_a_short_training_has_a_short_warm_up(epochs: int, first: float) -> None:
    """Ten epochs of warm-up would otherwise be all that a demo trains for."""
    recipe = Recipe(epochs=epochs, batch_size=40, lr=1.0, warmup_lr=0.1)
    rates: list[float] = []
    train(supernet_of(), recipe=recipe, on_epoch=lambda end: rates.append(end.lr))
    assert rates[0] == pytest.approx(first)
    assert max(rates) > 0.5


def test_the_default_is_the_published_recipe() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (500, 64, 1e-4)
    assert (recipe.warmup_epochs, recipe.warmup_lr, recipe.min_lr) == (10, 1e-6, 1e-5)
    assert recipe.lr == 5e-4


# Divergence


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    """The first epoch warms up gently; the second step of the next one meets spoilt weights."""
    path = tmp_path / "unfinished.safetensors"
    recipe = Recipe(epochs=6, batch_size=16, lr=1e38, warmup_epochs=3)
    ends: list[EpochEnd] = []
    with pytest.raises(
        TrainingDivergedError, match=r"loss is (nan|inf) at step 4; lower"
    ) as caught:
        train(supernet_of(), recipe=recipe, path=path, on_epoch=ends.append)
    assert str(path) in str(caught.value)
    assert [end.epoch for end in ends] == [1]
    tensors, metadata = load_checkpoint(path)
    assert metadata["epoch"] == "1"
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_spoilt_after_a_finite_loss_are_not_saved_as_good(tmp_path: Path) -> None:
    """One step an epoch: its loss was finite, what it made of the weights is not."""
    path = tmp_path / "unfinished.safetensors"
    recipe = Recipe(epochs=4, batch_size=40, lr=1e39, warmup_epochs=2)
    with pytest.raises(TrainingDivergedError, match="not finite after step 1; lower"):
        train(supernet_of(), recipe=recipe, path=path)
    tensors, metadata = load_checkpoint(path)
    assert metadata["epoch"] == "1"
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_divergence_without_a_checkpoint_says_so_too() -> None:
    recipe = Recipe(epochs=2, batch_size=16, lr=1e39, warmup_epochs=0)
    with pytest.raises(TrainingDivergedError, match=r"at step 1; lower the learning rate$"):
        train(supernet_of(), recipe=recipe)


def test_the_training_split_is_only_read() -> None:
    split = digits()[0]
    assert isinstance(split, TensorSplit)
    before = split.images.clone(), split.labels.clone()
    train(supernet_of())
    assert torch.equal(split.images, before[0])
    assert torch.equal(split.labels, before[1])


def test_any_network_from_images_to_logits_trains() -> None:
    """`train_network` needs nothing of timm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    losses: list[float] = []
    train_network(
        model,
        digits()[0],
        dataclasses.replace(RECIPE, epochs=60, lr=1e-2),
        seed=0,
        on_epoch=lambda end: losses.append(end.loss),
    )
    assert losses[-1] < 0.3 < losses[0]
