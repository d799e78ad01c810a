"""Designs of a supernet's training: which subnets a step takes, and what is asked of them."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import DIGITS, digits, supernet_of
from torch import Tensor, nn

from search_spaces import LayerConfig, ParamLimits
from supernet import Checkpointing, Design, GLoRALinear, Recipe, Supernet, train_supernet
from supernet.averaging import Team
from supernet.initialisation import weight_gradients
from supernet.paths import Paths, latin_square
from supernet.recipes import RecipeError, identity_of
from supernet.shifting import shifted
from supernet.steps import SupernetPasses
from supernet.training import make_optimizer
from supernet.weight_average import WeightAverage

RECIPE = Recipe(epochs=3, batch_size=16, lr=5e-3, warmup_epochs=1)
SPACE = supernet_of(DIGITS).space
LIMITS = ParamLimits(max_params=2_000)
DESIGNS = {
    "fair": Design(paths="fair"),
    "within a budget": Design(limits=LIMITS),
    "three paths": Design(paths_per_step=3),
    "sandwich": Design(sandwich=2),
    "noise": Design(noise=0.5),
    "consistency": Design(noise=0.5, consistency=1.0),
    "rates": Design(lr_factors={"A": 0.1, "down": 4.0, "head": 2.0}),
    "gradients": Design(init="gradient"),
}
RECIPES = {
    "smoothing": dataclasses.replace(RECIPE, label_smoothing=0.1),
    "shift": dataclasses.replace(RECIPE, shift=1),
    "ema": dataclasses.replace(RECIPE, ema=0.9),
}


class StopError(Exception):
    """What a test interrupts with."""


def trained(
    *,
    recipe: Recipe = RECIPE,
    design: Design | None = None,
    path: Path | None = None,
    stop_after: int | None = None,
) -> dict[str, Tensor]:
    supernet = supernet_of(DIGITS)
    kept = None if path is None else Checkpointing(path=path, every_s=0.0, identity={})

    def on_epoch(end: Any) -> None:
        if end.epoch == stop_after:
            raise StopError

    train_supernet(
        supernet,
        digits()[0],
        recipe,
        seed=0,
        design=design or Design(),
        checkpointing=kept,
        on_epoch=on_epoch,
    )
    return {name: tensor.clone() for name, tensor in supernet.trainable_state().items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "design"),
    [*((RECIPE, d) for d in DESIGNS.values()), *((r, Design()) for r in RECIPES.values())],
    ids=[*DESIGNS, *RECIPES],
)
def test_each_design_changes_the_training_and_resumes_to_the_same_weights(
    recipe: Recipe, design: Design, tmp_path: Path
) -> None:
    """A key that did nothing would go unnoticed, and one with a state that no checkpoint holds
    would end elsewhere after an interruption.
    """
    whole = trained(recipe=recipe, design=design)
    plain = trained()
    assert any(not torch.equal(whole[name], plain[name]) for name in whole)
    path = tmp_path / "training.safetensors"
    with pytest.raises(StopError):
        trained(recipe=recipe, design=design, path=path, stop_after=1)
    resumed = trained(recipe=recipe, design=design, path=path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


# Paths


def test_a_latin_square_takes_every_choice_equally_often() -> None:
    """Its rows are subnets; the longest gene has each choice in one of them."""
    space = SPACE
    longest = max(len(gene.choices) for gene in space.genes)
    for seed in range(20):
        rows = latin_square(space, random.Random(seed))
        assert len(rows) == longest
        for gene in space.genes:
            counts = Counter(row.to_params()[gene.name] for row in rows)
            often = [counts[choice] for choice in gene.choices]
            assert max(often) - min(often) <= 1
            assert sum(often) == longest


def test_fair_paths_are_balanced_and_a_function_of_their_number() -> None:
    """Wherever a training is resumed, a path is what it would have been."""
    space = SPACE
    longest = max(len(gene.choices) for gene in space.genes)
    design = Design(paths="fair", paths_per_step=2)
    paths = Paths(space, design, seed=3)
    drawn = [paths.of(number) for number in range(5 * longest)]
    again = Paths(space, design, seed=3)
    assert [again.of(n) for n in reversed(range(5 * longest))] == drawn[::-1]
    flat = [subnet for step in drawn for subnet in step]
    gene = max(space.genes, key=lambda each: len(each.choices))
    counts = Counter(subnet.to_params()[gene.name] for subnet in flat)
    assert set(counts.values()) == {len(flat) // longest}
    other = [Paths(space, design, seed=4).of(n) for n in range(3)]
    assert other != drawn[:3]


def test_paths_within_limits() -> None:
    """The search may use no other subnets, so none has to be trained."""
    space = SPACE
    sizes = [
        space.n_params(Paths(space, Design(limits=LIMITS), seed=0).of(number)[0])
        for number in range(50)
    ]
    assert max(sizes) <= 2_000
    free = [space.n_params(Paths(space, Design(), seed=0).of(n)[0]) for n in range(50)]
    assert max(free) > 2_000


def test_a_sandwich_holds_the_largest_and_the_smallest() -> None:
    """The largest is first: it teaches."""
    space = SPACE
    largest, smallest, *others = Paths(space, Design(sandwich=2), seed=0).of(7)
    assert largest == space.max_subnet()
    assert smallest == space.min_subnet()
    assert len(others) == 2


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"paths": "fair", "limits": LIMITS}, "fair paths"),
        ({"lr_factors": {"F": 1.0, "up": 2.0}}, "lr_factors has F; accepted: A, B"),
    ],
)
def test_designs_that_contradict_themselves(fields: dict[str, Any], told: str) -> None:
    """The message names the key."""
    with pytest.raises(RecipeError, match=told):
        Design(**fields)


# Passes


def gradients_of(supernet: Supernet) -> dict[str, Tensor]:
    return {
        name: p.grad.clone() for name, p in supernet.trainable_parameters() if p.grad is not None
    }


def test_a_sandwich_sums_what_its_subnets_ask_for() -> None:
    """The largest learns from the labels, the others from what it says; each counts alike."""
    supernet, (train, _) = supernet_of(DIGITS), digits()
    supernet.eval()  # no drop path, so that the same passes can be made again by hand
    images, labels = train.gather(torch.arange(8))
    design = Design(sandwich=1)
    passes = SupernetPasses(supernet, RECIPE, design, seed=0, team=Team())
    loss = passes(2, images, labels)
    found = gradients_of(supernet)
    supernet.zero_grad()
    subnets = Paths(supernet.space, design, seed=0).of(2)
    supernet.set_active_subnet(subnets[0])
    logits = supernet(images)
    losses = [F.cross_entropy(logits, labels)]
    for subnet in subnets[1:]:
        supernet.set_active_subnet(subnet)
        losses.append(F.cross_entropy(supernet(images), logits.detach().softmax(1)))
    mean = torch.stack(losses).mean()
    mean.backward()
    torch.testing.assert_close(loss, mean.detach())
    expected = gradients_of(supernet)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_several_paths_share_a_batch() -> None:
    """The gradient is the mean over images, whichever path served them; what the optimizer is told
    to average in a team are the parameters that have one.
    """
    supernet, (train, _) = supernet_of(DIGITS), digits()
    supernet.eval()
    images, labels = train.gather(torch.arange(7))
    design = Design(paths_per_step=2)
    passes = SupernetPasses(supernet, RECIPE, design, seed=0, team=Team())
    loss = passes(5, images, labels)
    found = gradients_of(supernet)
    trained_now = {id(p) for p in passes.trained(5)}
    assert {n for n, p in supernet.trainable_parameters() if id(p) in trained_now} == set(found)
    supernet.zero_grad()
    total = torch.zeros(())
    subnets = Paths(supernet.space, design, seed=0).of(5)
    for subnet, part, own in zip(
        subnets, images.tensor_split(2), labels.tensor_split(2), strict=True
    ):
        supernet.set_active_subnet(subnet)
        total = total + F.cross_entropy(supernet(part), own, reduction="sum") / 7
    total.backward()
    torch.testing.assert_close(loss, total.detach())
    for name, gradient in gradients_of(supernet).items():
        torch.testing.assert_close(found[name], gradient)


# Noise


@pytest.mark.parametrize(
    "config",
    [
        LayerConfig(A="lora_2", B="lora_1", C="lora_2", D="vector", E="vector"),
        LayerConfig(A="vector", B="constant", C="vector", D="constant"),
        LayerConfig(A="constant", B="vector", E="constant"),
        LayerConfig(),
    ],
)
@pytest.mark.parametrize("storage", ["entangled", "separate"])
def test_noise_multiplies_the_change_of_each_output(config: LayerConfig, storage: Any) -> None:
    """And the frozen part not: y = y0 + z * (y1 - y0)."""
    torch.manual_seed(0)
    base = nn.Linear(5, 4)
    layer = GLoRALinear(base, 2, storage)
    with torch.no_grad():
        for name in layer.adapter_names:
            layer.get_parameter(name).normal_(std=0.3)
    layer.config = config
    x = torch.randn(6, 5)
    exact, frozen = layer(x), F.linear(x, layer.weight, layer.bias)
    layer.noise = 0.5
    torch.manual_seed(1)
    noisy = layer(x)
    torch.manual_seed(1)
    factors = 1 + 0.5 * torch.randn(4)
    expected = frozen + factors * (exact - frozen)
    torch.testing.assert_close(noisy, expected, atol=1e-5, rtol=1e-4)
    parameters = layer.active_parameters(config)
    if parameters:
        weights = torch.randn_like(noisy)
        found = torch.autograd.grad((noisy * weights).sum(), parameters)
        wanted = torch.autograd.grad((expected * weights).sum(), parameters)
        for mine, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)
    layer.eval()
    assert torch.equal(layer(x), exact), "there is no noise where nothing trains"


def test_no_noise_is_left_when_training_ends() -> None:
    """The network is used for other things after it has trained."""
    supernet = supernet_of(DIGITS)
    train_supernet(supernet, digits()[0], RECIPE, seed=0, design=Design(noise=0.5))
    assert {layer.noise for layer in supernet.layers.values()} == {0.0}


# Rates, averages, augmentation, where it starts


def test_each_kind_of_tensor_has_its_rate() -> None:
    """A product of factors, as the tensor's name says."""
    supernet = supernet_of(DIGITS, storage="separate")
    parameters = dict(supernet.trainable_parameters())
    optimizer = make_optimizer(
        parameters, RECIPE, {"A": 0.5, "down": 4.0, "up": 0.25, "head": 3.0, "E": 0.1}
    )
    rates = {
        id(p): group["lr"] / RECIPE.lr for group in optimizer.param_groups for p in group["params"]
    }
    layer = next(iter(supernet.layers))
    for tensor, factor in {
        "A_down": 2.0,
        "A_up": 0.125,
        "A_vector": 0.5,
        "B_down": 4.0,
        "B_constant": 1.0,
        "C_up": 0.25,
        "D": 1.0,
        "E": 0.1,
        "E_constant": 0.1,
    }.items():
        assert rates[id(parameters[f"{layer}.{tensor}"])] == pytest.approx(factor), tensor
    assert rates[id(parameters["head.weight"])] == pytest.approx(3.0)
    assert len(rates) == len(parameters)


def test_the_average_of_weights() -> None:
    """By hand, with a decay that grows."""
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage({"w": parameter}, 0.9)
    expected = 1.0
    for step in range(300):
        with torch.no_grad():
            parameter.copy_(torch.tensor([float(step)]))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        average.update(step)
    average.swap()
    assert parameter.item() == pytest.approx(expected, rel=1e-5)
    average.swap()
    assert parameter.item() == 299


def test_images_move_and_the_mean_comes_in() -> None:
    """Each image is some crop of itself with a margin of zeros."""
    torch.manual_seed(0)
    images = torch.randn(40, 3, 6, 5)
    moved = shifted(images, 2)
    padded = F.pad(images, (2, 2, 2, 2))
    places = set()
    for image, margin in zip(moved, padded, strict=True):
        (found,) = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(image, margin[:, y : y + 6, x : x + 5])
        ]
        places.add(found)
    assert len(places) > 10


def test_gradients_point_where_the_low_rank_factors_start() -> None:
    """The change that one step of `down` makes is then the best of its rank; untrained, the
    supernet still is the backbone.
    """
    supernet, (train, _) = supernet_of(DIGITS), digits()
    before = supernet_of(DIGITS)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(5))
    gradients = weight_gradients(supernet, train, order[:128], 16)
    seen: dict[str, Tensor] = {}

    def stop(_: Any) -> None:
        raise StopError

    recipe = dataclasses.replace(RECIPE, epochs=1, lr=1e-30, warmup_lr=1e-30, min_lr=0.0)
    with pytest.raises(StopError):
        train_supernet(
            supernet, train, recipe, seed=5, design=Design(init="gradient"), on_epoch=stop
        )
    for name, layer in supernet.layers.items():
        _, _, right = torch.linalg.svd(gradients[name], full_matrices=False)
        up = layer.B_up.detach()
        cosine = F.cosine_similarity(up, right[: len(up)])
        torch.testing.assert_close(cosine, torch.ones(len(up)), atol=1e-4, rtol=0)
        torch.testing.assert_close(up.norm(dim=1), before.layers[name].B_up.norm(dim=1))
        assert not layer.B_down.abs().max() > 1e-20
        assert not layer.weight.requires_grad
        seen[name] = up
    assert len(seen) == len(supernet.space.layers)


def test_later_fields_do_not_change_the_identity_of_earlier_trainings() -> None:
    """Supernets that were trained before there were designs are found again."""
    assert identity_of(Recipe()) == (
        '{"batch_size": 64, "epochs": 500, "lr": 0.0005, "min_lr": 1e-05, "precision": "auto", '
        '"warmup_epochs": 10, "warmup_lr": 1e-06, "weight_decay": 0.0001}'
    )
    assert identity_of(Design()) == "{}"
    assert identity_of(Design(limits=LIMITS)) != identity_of(Design())
    assert '"ema"' in identity_of(Recipe(ema=0.9))
