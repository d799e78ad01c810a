"""Batches of subnets: the figures of each alone, whatever is shared, kept, or goes wrong."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
import torch
from small_networks import DIGITS, SWIN, VIT, digits, filled_supernet
from torch import Tensor

from search_spaces import InvalidConfigError, LayerConfig, SubnetConfig
from supernet import Architecture, NonFiniteLossError, SubnetEvaluator, Supernet, TensorSplit
from supernet.data import Preprocessing

DEEPER = Architecture(DIGITS.model, 5, {**DIGITS.args, "depth": 4})


def figures(found: Any) -> tuple[float, float, int]:
    """All but the seconds."""
    assert not isinstance(found, Exception), found
    return found.top1, found.loss, found.n_images


def family_of(supernet: Supernet, count: int = 12) -> list[SubnetConfig]:
    """Subnets that agree in their first layers, up to a random one; with repetitions."""
    rng = random.Random(1)
    family = [supernet.space.sample(rng), supernet.space.sample(rng)]
    names = [layer.name for layer in supernet.space.layers]
    while len(family) < count:
        head, tail = rng.choice(family), supernet.space.sample(rng)
        cut = rng.randrange(len(names) + 1)
        layers = {n: (head if k < cut else tail).layers[n] for k, n in enumerate(names)}
        family.append(SubnetConfig(layers))
    rng.shuffle(family)
    return family


def color_images(n: int = 20) -> TensorSplit:
    """Random images of the small colour networks."""
    generator = torch.Generator().manual_seed(0)
    return TensorSplit(
        name="val",
        images=torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8),
        labels=torch.randint(0, 5, (n,), generator=generator),
        preprocessing=Preprocessing.from_model(VIT.build()),
        num_classes=5,
        class_names=None,
        fingerprint="random",
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [50, 16])
@pytest.mark.parametrize("room", [None, 0, 1, 2, 3])
def test_a_batch_gives_the_figures_of_each_subnet_alone(
    precision: Any, batch_size: int, room: int | None
) -> None:
    """To the last digit, with room for any number of boundaries and none."""
    supernet, val = filled_supernet(DEEPER), digits()[1]
    family = family_of(supernet)
    boundary = 5 * 16 * 4 * len(val)  # 4 patches and a class token of 16 float32
    how: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
    together = SubnetEvaluator(
        supernet, val, share_bytes=None if room is None else room * boundary, **how
    )
    alone = SubnetEvaluator(supernet, val, **how)
    expected = [figures(alone(subnet)) for subnet in family]
    for batch in (family, family[::-1]):  # the second call of an evaluator as well
        found = dict(together.evaluate_each(batch))
        assert sorted(found) == list(range(len(family)))
        given = [figures(found[k]) for k in range(len(family))]
        assert given == (expected if batch is family else expected[::-1])
    assert len(set(expected)) > 5


def test_networks_without_a_chain_are_evaluated_as_well() -> None:
    supernet, val = filled_supernet(SWIN), color_images()
    family = family_of(supernet, 5)
    found = dict(SubnetEvaluator(supernet, val).evaluate_each(family))
    alone = SubnetEvaluator(supernet, val)
    assert [figures(found[k]) for k in range(5)] == [figures(alone(subnet)) for subnet in family]


def test_blocks_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the rest of this file would test nothing."""
    supernet, val = filled_supernet(DEEPER), digits()[1]
    evaluator = SubnetEvaluator(supernet, val)
    first = supernet.space.max_subnet()
    last = {n: LayerConfig() if n.startswith("blocks.3") else c for n, c in first.layers.items()}
    batch = [first, SubnetConfig(last), first]
    list(evaluator.evaluate_each(batch))  # looks for the chain
    model: Any = evaluator._model
    calls: list[int] = []
    for number, block in enumerate(model.blocks):
        block.attn.register_forward_pre_hook(lambda _m, _x, n=number: calls.append(n))
    model.patch_embed.proj.register_forward_pre_hook(lambda _m, _x: calls.append(-1))
    list(evaluator.evaluate_each(batch))
    assert sorted(calls) == [-1, 0, 1, 2, 3, 3], "the third is the first one again"


def test_images_are_normalised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet, val = filled_supernet(), digits()[1]
    evaluator = SubnetEvaluator(supernet, val, batch_size=16)

    def refuse(_self: Preprocessing, _images: Tensor) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(Preprocessing, "normalise", refuse)
    evaluator(supernet.space.max_subnet())


def test_images_that_do_not_fit_are_normalised_for_each_subnet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And give the same figures."""
    supernet, val = filled_supernet(DEEPER), digits()[1]
    family = family_of(supernet)
    expected = dict(SubnetEvaluator(supernet, val, batch_size=16).evaluate_each(family))
    monkeypatch.setattr("supernet.subnet_evaluator._CPU_SPARE_BYTES", 0)
    evaluator = SubnetEvaluator(supernet, val, batch_size=16, share_bytes=2**20)
    assert evaluator._batches is None
    found = dict(evaluator.evaluate_each(family))
    assert {k: figures(v) for k, v in found.items()} == {k: figures(v) for k, v in expected.items()}


def test_errors_are_results_of_their_own_subnets() -> None:
    """A foreign subnet, and one that is not finite in its last block, among others."""
    supernet, val = filled_supernet(DEEPER), digits()[1]
    with torch.no_grad():
        supernet.layers["blocks.3.mlp.fc2"].A_down[0, 1] = float("nan")  # `lora_2` and above
    everything = supernet.space.max_subnet()
    fine = {
        n: LayerConfig() if n == "blocks.3.mlp.fc2" else c for n, c in everything.layers.items()
    }
    foreign = SubnetConfig({"blocks.9": LayerConfig()})
    batch = [everything, SubnetConfig(fine), foreign, everything, supernet.space.min_subnet()]
    found = dict(SubnetEvaluator(supernet, val).evaluate_each(batch))
    assert [type(found[k]) for k in (0, 2, 3)] == [
        NonFiniteLossError,
        InvalidConfigError,
        NonFiniteLossError,
    ]
    alone = SubnetEvaluator(supernet, val)
    assert [figures(found[k]) for k in (1, 4)] == [figures(alone(batch[k])) for k in (1, 4)]


def test_a_forward_that_fails_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, say, in the middle of a batch, with boundaries half made."""
    supernet, val = filled_supernet(DEEPER), digits()[1]
    family = family_of(supernet)
    alone = SubnetEvaluator(supernet, val, batch_size=16)
    expected = [figures(alone(subnet)) for subnet in family]
    evaluator = SubnetEvaluator(supernet, val, batch_size=16)
    list(evaluator.evaluate_each(family[:2]))
    model: Any = evaluator._model
    calls = iter(range(1000))

    def fail_at_times(_module: Any, _args: Any) -> None:
        if next(calls) in (3, 12, 25):
            raise MemoryError("no room")

    model.blocks[3].register_forward_pre_hook(fail_at_times)
    found = dict(evaluator.evaluate_each(family))
    failed = [k for k in found if isinstance(found[k], MemoryError)]
    assert len(failed) == 3
    for k in set(found) - set(failed):
        assert figures(found[k]) == expected[k]


def test_what_was_trained_between_two_batches_is_seen() -> None:
    """Nothing is kept from one batch to the next but images."""
    supernet, val = filled_supernet(DEEPER), digits()[1]
    family = family_of(supernet)
    evaluator = SubnetEvaluator(supernet, val)
    before = dict(evaluator.evaluate_each(family))
    with torch.no_grad():
        for parameter in dict(supernet.trainable_parameters()).values():
            parameter.mul_(0.5)
    after = dict(evaluator.evaluate_each(family))
    fresh = dict(SubnetEvaluator(supernet, val).evaluate_each(family))
    assert {k: figures(v) for k, v in after.items()} == {k: figures(v) for k, v in fresh.items()}
    assert all(figures(after[k]) != figures(before[k]) for k in before)


def test_a_batch_that_is_not_read_to_its_end_leaves_nothing_behind() -> None:
    supernet, val = filled_supernet(DEEPER), digits()[1]
    family = family_of(supernet)
    evaluator = SubnetEvaluator(supernet, val)
    results = evaluator.evaluate_each(family)
    next(results)
    results.close()
    whole = dict(SubnetEvaluator(supernet, val).evaluate_each(family))
    again = dict(evaluator.evaluate_each(family))
    assert {k: figures(v) for k, v in again.items()} == {k: figures(v) for k, v in whole.items()}


def test_seconds_add_up_to_less_than_the_batch_took() -> None:
    """What a consumer does between two results is not the evaluation's."""
    supernet, val = filled_supernet(), digits()[1]
    family = family_of(supernet, 4)
    seconds = []
    for _, found in SubnetEvaluator(supernet, val).evaluate_each(family):
        assert not isinstance(found, Exception)
        seconds.append(found.eval_s)
        fields = {"top1", "loss", "n_images", "eval_s", "calibrated_loss"}
        assert dataclasses.asdict(found).keys() == fields
    assert len(seconds) == 4
    assert min(seconds) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [50, 16])
def test_a_batch_on_a_gpu_gives_the_figures_of_each_subnet_alone(
    precision: Any, batch_size: int
) -> None:
    """With the next subnet under way before a result is read."""
    supernet, val = filled_supernet(DEEPER).cuda(), digits()[1].to("cuda")
    family = family_of(supernet)
    how: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
    found = dict(SubnetEvaluator(supernet, val, **how).evaluate_each(family))
    alone = SubnetEvaluator(supernet, val, **how)
    assert [figures(found[k]) for k in range(len(family))] == [figures(alone(s)) for s in family]
    on_cpu = SubnetEvaluator(filled_supernet(DEEPER), digits()[1], **how)(family[0])
    assert found[0].loss == pytest.approx(on_cpu.loss, rel=1e-4 if precision == "fp32" else 2e-2)
