"""Greedy soup: who stays in the average, by hand, and what is never worse."""

from __future__ import annotations

import random

import pytest
import torch
from small_networks import digits, fill_support_tensors, subnets_of, supernet_of

from search_spaces import InvalidConfigError, LayerConfig, SubnetConfig
from supernet import Supernet, evaluate_model
from supernet.average_export import average_export
from supernet.soup import greedy_soup


def filled() -> Supernet:
    """A supernet of random values; some averages are better than the first subnet drawn."""
    supernet = supernet_of()
    fill_support_tensors(supernet, seed=2)
    return supernet


def drawn(supernet: Supernet) -> list[SubnetConfig]:
    return [supernet.space.sample(random.Random(seed)) for seed in range(6)]


def loss_of(supernet: Supernet, subnets: list[SubnetConfig]) -> float:
    _, val = digits()
    return evaluate_model(supernet.merge_average(subnets), val).loss


def test_who_does_not_raise_the_val_loss_stays() -> None:
    """By hand; some of six stay and some go, else the test shows nothing."""
    supernet = filled()
    subnets = drawn(supernet)
    expected = subnets[:1]
    losses = [loss_of(supernet, expected)]
    for subnet in subnets[1:]:
        loss = loss_of(supernet, [*expected, subnet])
        if loss <= losses[-1]:
            expected = [*expected, subnet]
        losses.append(min(loss, losses[-1]))
    assert 1 < len(expected) < len(subnets)
    told: list[tuple[int, float]] = []
    _, val = digits()
    kept = greedy_soup(supernet, subnets, val, on_candidate=lambda *one: told.append(one))
    assert kept == expected
    assert told == list(enumerate(losses, start=1))
    assert loss_of(supernet, kept) == losses[-1] < losses[0]


def test_the_first_one_stays_whatever_comes_after() -> None:
    """And an average that is as good is not worse: the same subnet twice counts twice."""
    supernet = filled()
    best, *_, worst = sorted(drawn(supernet), key=lambda subnet: loss_of(supernet, [subnet]))
    _, val = digits()
    assert greedy_soup(supernet, [best], val) == [best]
    assert greedy_soup(supernet, [best, best], val) == [best, best]
    assert greedy_soup(supernet, [worst, best], val)[0] == worst


def test_the_average_of_those_kept_is_exported_exactly() -> None:
    """The network that was measured is the one that `average_export` makes."""
    supernet = supernet_of()
    fill_support_tensors(supernet, scale=0.05)
    _, val = digits()
    kept = greedy_soup(supernet, subnets_of(supernet.space), val)
    exportable = average_export(supernet, kept)
    measured = supernet.merge_average(kept).state_dict()
    state = exportable.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in measured.items())
    assert exportable.logit_difference(val) < 1e-4
    assert [one["digest"] for one in exportable.origin["average_of"]] == [s.digest for s in kept]


def test_nothing_and_a_foreign_subnet_are_refused() -> None:
    supernet = supernet_of()
    _, val = digits()
    with pytest.raises(InvalidConfigError, match="no subnets are given"):
        greedy_soup(supernet, [], val)
    foreign = SubnetConfig({"blocks.9.attn.qkv": LayerConfig()})
    with pytest.raises(InvalidConfigError, match="not a subnet of this search space"):
        greedy_soup(supernet, [supernet.space.max_subnet(), foreign], val)
