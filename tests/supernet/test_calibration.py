"""The calibrated loss: the least over all temperatures, whatever the scale of the logits; and the
temperature in the head of a network.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from small_networks import digits, filled_supernet, subnets_of

from supernet import SubnetEvaluator, evaluate_model
from supernet.average_export import average_export
from supernet.calibration import calibrated_loss, fitted_temperature
from supernet.export import subnet_export
from supernet.temperature import temperature_of, with_temperature


def drawn(seed: int, n: int = 60, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that know something of the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn((n, classes), generator=generator)
    return logits + 1.5 * F.one_hot(labels, classes), labels


def searched(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The least cross-entropy by a bounded search over log T."""

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits.double() / torch.tensor(log_t).exp(), labels))

    found = minimize_scalar(loss, bounds=(-2.99, 2.99), method="bounded", options={"xatol": 1e-9})
    return float(found.fun)


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 3.0, 15.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_least_loss_over_all_temperatures(scale: float, seed: int) -> None:
    """Found from far away too, and the same whatever the logits were multiplied by."""
    logits, labels = drawn(seed)
    least = float(calibrated_loss(scale * logits, labels))
    assert least == pytest.approx(searched(logits, labels), abs=1e-8)
    assert least <= float(F.cross_entropy(scale * logits, labels)) + 1e-7


def test_the_temperature_is_where_the_least_loss_is() -> None:
    """And logits that are three times as large have a temperature three times as high."""
    logits, labels = drawn(3)
    temperature = fitted_temperature(logits, labels)
    found = float(F.cross_entropy(logits.double() / temperature, labels))
    assert found == pytest.approx(searched(logits, labels), abs=1e-8)
    assert fitted_temperature(3 * logits, labels) == pytest.approx(3 * temperature, rel=1e-4)


def test_a_calibrated_network_predicts_the_same_with_the_least_loss() -> None:
    """Of a subnet and of an average; the supernet stays what it was. What is exported of them still
    agrees with what is merged.
    """
    supernet = filled_supernet()
    _, val = digits()
    before = {name: tensor.clone() for name, tensor in supernet.trainable_state().items()}
    subnets = subnets_of(supernet.space, 3)
    for make in (
        partial(subnet_export, subnet=subnets[0]),
        partial(average_export, subnets=subnets),
    ):
        network = make(supernet).network
        temperature = temperature_of(network, val)
        assert abs(temperature - 1) > 0.05, "else the test shows nothing"
        calibrated = make(with_temperature(supernet, temperature))
        assert calibrated.logit_difference(val) < 1e-4
        plain, found = (evaluate_model(each, val) for each in (network, calibrated.network))
        assert found.top1 == plain.top1
        assert found.loss < plain.loss
        assert temperature_of(calibrated.network, val) == pytest.approx(1.0, abs=1e-3)
    assert all(torch.equal(before[name], t) for name, t in supernet.trainable_state().items())


@pytest.mark.parametrize("shift", [0, 1])
def test_a_network_that_is_always_right_or_wrong_stays_as_it_is(shift: int) -> None:
    """Its least loss is at a limit of the temperature, which would spoil it on other images."""
    supernet = filled_supernet()
    _, val = digits()
    network: Any = supernet.merge(subnets_of(supernet.space, 1)[0])
    with torch.no_grad():
        said = torch.cat([network(images).argmax(1) for images, _ in val.batches(64)])

    class Relabelled:
        """The images with what the network says of them as labels, or with something else."""

        scored_classes = None

        def batches(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
            labels = (said + shift) % network.num_classes
            images = [part for part, _ in val.batches(size)]
            return list(zip(images, labels.split(size), strict=True))

    relabelled: Any = Relabelled()
    assert temperature_of(network, relabelled) == 1.0


def test_logits_that_say_nothing_or_everything_stop_at_the_limits() -> None:
    """T would be infinite or 0: the loss is finite, and that at the limit."""
    labels = torch.arange(4)
    right = 8.0 * F.one_hot(labels, 4)
    assert float(calibrated_loss(right, labels)) == pytest.approx(0.0, abs=1e-9)
    wrong = right.roll(1, 0)
    expected = float(F.cross_entropy(wrong / 20, labels))
    assert float(calibrated_loss(wrong, labels)) == pytest.approx(expected, rel=1e-3)
    flat = torch.zeros((4, 4))
    assert float(calibrated_loss(flat, labels)) == pytest.approx(1.386294, abs=1e-6)


def test_classes_that_are_not_scored_do_not_count() -> None:
    """Their logits are minus infinity."""
    logits, labels = drawn(2)
    padded = torch.cat([logits, torch.full((60, 2), -torch.inf)], 1)
    assert float(calibrated_loss(padded, labels)) == float(calibrated_loss(logits, labels))


def test_an_evaluator_measures_it_where_that_is_asked_for() -> None:
    """Of the same logits; the other figures stay as they are."""
    supernet, split = filled_supernet(), digits()[1]
    ((images, labels),) = list(split.batches(1000))
    subnets = subnets_of(supernet.space)
    plain = SubnetEvaluator(supernet, split, batch_size=16)
    both = dict(
        SubnetEvaluator(supernet, split, batch_size=16, calibrated=True).evaluate_each(subnets)
    )
    for position, subnet in enumerate(subnets):
        found, expected = both[position], plain(subnet)
        assert (found.loss, found.top1) == (expected.loss, expected.top1)
        assert expected.calibrated_loss is None
        with torch.no_grad():
            logits = supernet.merge(subnet)(images)
        assert found.calibrated_loss == pytest.approx(searched(logits, labels), abs=2e-6)
        assert found.calibrated_loss == round(found.calibrated_loss, 6) <= found.loss
