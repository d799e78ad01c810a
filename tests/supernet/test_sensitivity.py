"""Sensitivity: the scores are the first-order change of the loss, and nothing else changes."""

from __future__ import annotations

import copy
import dataclasses
import json
import random

import pytest
import torch
import torch.nn.functional as F
from small_networks import DIGITS, digits, filled_supernet

from search_spaces import ParamLimits, SubnetConfig
from supernet import Architecture
from supernet import sensitivity as module
from supernet.sensitivity import sensitivity


def loss_with(supernet, subnet, images, labels) -> float:
    supernet.set_active_subnet(subnet)
    with torch.no_grad():
        return float(F.cross_entropy(supernet(images).double(), labels))


def test_a_score_is_what_a_small_choice_takes_away(monkeypatch) -> None:
    """With all support tensors scaled down, switching one on changes the loss by minus its score:
    by finite differences, for every choice of all five support tensors of a layer.
    """
    supernet, (train, _) = filled_supernet(), digits()
    with torch.no_grad():
        for name, parameter in supernet.trainable_parameters():
            if "head" not in name:
                parameter.mul_(1e-2 if name.endswith(("_down", "_up")) else 1e-4)
    supernet.double()
    images, labels = train.gather(torch.arange(32))
    images = images.double()
    monkeypatch.setattr(module, "_BATCHES", 1)
    monkeypatch.setattr(module, "_batches", lambda n, seed: [torch.arange(32)])
    monkeypatch.setattr(type(train), "_normalised", _in_double(type(train)._normalised))
    scores = sensitivity(supernet, train)
    empty = supernet.space.min_subnet()
    layer = "blocks.1.mlp.fc1"
    before = loss_with(supernet, empty, images, labels)
    n_checked = 0
    for gene in supernet.space.genes:
        if gene.layer != layer:
            continue
        for token in gene.choices:
            config = dataclasses.replace(empty.layers[layer], **{gene.support: token})
            with_it = SubnetConfig({**empty.layers, layer: config})
            change = loss_with(supernet, with_it, images, labels) - before
            assert scores[gene.name][token] == pytest.approx(-change, rel=0.05, abs=1e-9), token
            n_checked += token != "none" and abs(change) > 1e-8
    assert n_checked >= 10, "choices that change nothing would prove nothing"


def _in_double(normalised):
    return lambda split, images: normalised(split, images).double()


def test_every_choice_has_a_score_that_json_can_hold(monkeypatch) -> None:
    """The same in every call, whatever ran before; another seed gives others."""
    monkeypatch.setattr(module, "_BATCHES", 4)
    supernet, (train, _) = filled_supernet(), digits()
    state = copy.deepcopy(supernet.state_dict())
    torch.manual_seed(5)
    found = sensitivity(supernet, train, seed=1, limits=ParamLimits(max_params=2_000))
    torch.manual_seed(6)
    supernet.set_active_subnet(supernet.space.sample(random.Random(0)))
    assert sensitivity(supernet, train, seed=1, limits=ParamLimits(max_params=2_000)) == found
    assert json.loads(json.dumps(found)) == found
    assert {g.name: set(g.choices) for g in supernet.space.genes} == {
        name: set(scores) for name, scores in found.items()
    }
    assert all(scores.get("none", 0.0) == 0.0 for scores in found.values())
    assert sensitivity(supernet, train, seed=2) != found
    assert all(torch.equal(tensor, state[k]) for k, tensor in supernet.state_dict().items())
    assert all(p.grad is None for p in supernet.parameters())


def test_layers_without_a_bias_have_scores_too(monkeypatch) -> None:
    """Of D there is nothing to choose; C and E would give them a bias."""
    monkeypatch.setattr(module, "_BATCHES", 2)
    supernet = filled_supernet(Architecture(DIGITS.model, 5, {**DIGITS.args, "qkv_bias": False}))
    found = sensitivity(supernet, digits()[0])
    assert found["blocks.0.attn.qkv.D"] == {"none": 0.0}
    assert found["blocks.0.attn.qkv.E"]["vector"] != 0.0
