"""Evaluation: the merged network's figures are the subnet's, and each is right by hand."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import (
    DIGITS,
    backbone_of,
    digits,
    filled_supernet,
    subnets_of,
)
from torch import Tensor, nn

from search_spaces import GLoRASearchError, InvalidConfigError, LayerConfig, SubnetConfig
from supernet import (
    Architecture,
    Evaluation,
    NonFiniteLossError,
    SubnetEvaluator,
    TensorSplit,
    evaluate_model,
    evaluate_subnets,
)


def figures(evaluation: Evaluation) -> tuple[float, float, int]:
    """All but the seconds."""
    return evaluation.top1, evaluation.loss, evaluation.n_images


def all_logits(model: nn.Module) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits (n, classes) in float64 and labels (n) of the val split, in one batch."""
    model.eval()
    ((images, labels),) = list(digits()[1].batches(1000))
    with torch.no_grad():
        return model(images).double().numpy(), labels.numpy()


def test_the_figures_are_right_by_hand() -> None:
    """Mean of -log softmax at the label, and the fraction whose largest logit is the label's."""
    model = backbone_of(DIGITS)
    logits, labels = all_logits(model)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    likelihoods = shifted[np.arange(50), labels] / shifted.sum(1)
    evaluation = evaluate_model(model, digits()[1])
    assert evaluation.loss == pytest.approx(-np.log(likelihoods).mean(), abs=1e-6)
    assert evaluation.top1 == (logits.argmax(1) == labels).mean()
    assert 0 < evaluation.top1 < 1
    assert evaluation.n_images == 50
    assert evaluation.eval_s > 0


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 256])
def test_the_remainder_of_the_last_batch_counts(batch_size: int) -> None:
    """A mean of batch means would weigh its images otherwise."""
    model = backbone_of(DIGITS)
    whole = evaluate_model(model, digits()[1], batch_size=50)
    parts = evaluate_model(model, digits()[1], batch_size=batch_size)
    assert parts.top1 == whole.top1
    assert parts.loss == pytest.approx(whole.loss, abs=2e-6)
    assert parts.n_images == 50


def test_a_loss_has_as_many_digits_as_are_stable() -> None:
    """Fitness must not depend on the order in which a machine sums."""
    loss = evaluate_model(backbone_of(DIGITS), digits()[1]).loss
    assert loss == round(loss, 6)


def test_evaluation_ends_training_mode() -> None:
    """Drop path would make the figures random."""
    model = backbone_of(DIGITS, drop_path=0.5).train()
    first = evaluate_model(model, digits()[1])
    assert not model.training
    assert figures(evaluate_model(model.train(), digits()[1])) == figures(first)


def test_the_evaluator_gives_the_figures_of_the_unmerged_subnet() -> None:
    """The slow path through the support tensors is what was trained."""
    supernet = filled_supernet()
    evaluate = SubnetEvaluator(supernet, digits()[1])
    losses = set()
    for subnet in subnets_of(supernet.space):
        found = evaluate(subnet)
        supernet.set_active_subnet(subnet)
        slow = evaluate_model(supernet, digits()[1])
        assert found.loss == pytest.approx(slow.loss, abs=1e-4)
        assert found.top1 == pytest.approx(slow.top1, abs=0.02)  # one image may be on the edge
        losses.add(found.loss)
    assert len(losses) == 5, "subnets that differ in nothing would prove nothing"


@pytest.mark.parametrize("batch_size", [50, 16])
def test_an_evaluation_does_not_depend_on_those_before(batch_size: int) -> None:
    """Whichever worker gets a candidate, and when: the same numbers, to the last digit."""
    supernet = filled_supernet()
    subnets = subnets_of(supernet.space)
    fresh = {
        subnet: figures(SubnetEvaluator(supernet, digits()[1], batch_size=batch_size)(subnet))
        for subnet in subnets
    }
    reused = SubnetEvaluator(supernet, digits()[1], batch_size=batch_size)
    for subnet in random.Random(0).sample(subnets * 3, 15):
        assert figures(reused(subnet)) == fresh[subnet]


def test_a_bias_that_one_subnet_gave_is_gone_for_the_next() -> None:
    """The one tensor that a merge might leave behind."""
    supernet = filled_supernet(Architecture(DIGITS.model, 5, {**DIGITS.args, "qkv_bias": False}))
    nothing = supernet.space.min_subnet()
    with_bias = SubnetConfig({name: LayerConfig(E="vector") for name in nothing.layers})
    evaluate = SubnetEvaluator(supernet, digits()[1])
    before = figures(evaluate(nothing))
    assert figures(evaluate(with_bias)) != before
    assert figures(evaluate(nothing)) == before


def test_evaluating_changes_nothing_of_the_supernet() -> None:
    supernet = filled_supernet()
    active = supernet.space.sample(random.Random(3))
    supernet.set_active_subnet(active)
    before = copy.deepcopy(supernet.state_dict())
    evaluate_subnets(supernet, subnets_of(supernet.space), digits()[1])
    after = supernet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert supernet.active_subnet == active


def test_an_evaluator_sees_what_has_been_trained_since() -> None:
    """It reads the supernet at each call, head included."""
    supernet = filled_supernet()
    subnet = supernet.space.max_subnet()
    evaluate = SubnetEvaluator(supernet, digits()[1])
    before = figures(evaluate(subnet))
    with torch.no_grad():
        for parameter in dict(supernet.trainable_parameters()).values():
            parameter.mul_(0.5)
    after = figures(evaluate(subnet))
    assert after != before
    assert after == figures(SubnetEvaluator(supernet, digits()[1])(subnet))


def test_several_subnets_come_in_their_order() -> None:
    supernet = filled_supernet()
    subnets = subnets_of(supernet.space)
    together = evaluate_subnets(supernet, iter(subnets), digits()[1], batch_size=16)
    alone = [SubnetEvaluator(supernet, digits()[1], batch_size=16)(s) for s in subnets]
    assert list(map(figures, together)) == list(map(figures, alone))
    assert evaluate_subnets(supernet, [], digits()[1]) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["support tensor", "head"])
def test_a_loss_that_is_not_finite_is_an_error(value: float, where: str) -> None:
    """It would otherwise be the fitness of a subnet, and NaN compares with nothing."""
    supernet = filled_supernet()
    with torch.no_grad():
        if where == "head":
            supernet.backbone.head.weight[0, 0] = value
        else:
            supernet.layers["blocks.1.mlp.fc2"].A_down[0, 0] = value
    evaluate = SubnetEvaluator(supernet, digits()[1])
    with pytest.raises(NonFiniteLossError, match=r"loss on the val split is (nan|inf)") as caught:
        evaluate(supernet.space.max_subnet())
    assert isinstance(caught.value, GLoRASearchError)


def test_a_broken_subnet_does_not_spoil_the_next() -> None:
    """One candidate of a thousand may overflow; the others go on in the same worker."""
    supernet = filled_supernet()
    with torch.no_grad():
        supernet.layers["blocks.1.mlp.fc2"].A_down[0, 1] = float("nan")  # of `lora_2` and above
    nothing, everything = supernet.space.min_subnet(), supernet.space.max_subnet()
    expected = figures(SubnetEvaluator(supernet, digits()[1])(nothing))
    evaluate = SubnetEvaluator(supernet, digits()[1])
    with pytest.raises(NonFiniteLossError):
        evaluate(everything)
    assert figures(evaluate(nothing)) == expected


def test_a_foreign_subnet_is_refused() -> None:
    supernet = filled_supernet()
    layers = dict(supernet.space.min_subnet().layers)
    layers.pop("blocks.0.mlp.fc1")
    with pytest.raises(InvalidConfigError, match=r"'blocks\.0\.mlp\.fc1' is missing"):
        SubnetEvaluator(supernet, digits()[1])(SubnetConfig(layers))


def test_bf16_is_close_and_not_the_same() -> None:
    """The precision of a study is part of its numbers; logits are summed in float32 either way."""
    model = backbone_of(DIGITS)
    full = evaluate_model(model, digits()[1])
    half = evaluate_model(model, digits()[1], precision="bf16")
    assert half.loss != full.loss
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert evaluate_model(model, digits()[1], precision="auto").loss == full.loss


def test_labels_belong_to_their_images() -> None:
    """Shuffled labels change the figures; the order of the images does not."""
    model, split = backbone_of(DIGITS), digits()[1]
    assert isinstance(split, TensorSplit)

    def of(images: Tensor, labels: Tensor) -> tuple[float, float, int]:
        fields = {**vars(split), "images": images, "labels": labels}
        return figures(evaluate_model(model, TensorSplit(**fields)))

    expected = of(split.images, split.labels)
    turned = of(split.images.flip(0), split.labels.flip(0))
    assert turned[0] == expected[0]
    assert turned[1] == pytest.approx(expected[1], abs=2e-6)
    assert of(split.images, split.labels.roll(1))[1] != expected[1]
