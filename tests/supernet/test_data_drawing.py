"""Stratified draws: proportional, within capacities, and the same on every machine."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.data.drawing import draw_stratified, share_out

CLASSES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=8)


@settings(deadline=None, derandomize=True)
@given(CLASSES, st.integers(0, 200))
def test_share_out_fills_up_to_the_capacities(classes: list[tuple[int, int]], n: int) -> None:
    weights, capacities = [w for w, _ in classes], [c for _, c in classes]
    places = share_out(n, weights, capacities)
    assert sum(places) == min(n, sum(capacities))
    assert all(0 <= p <= c for p, c in zip(places, capacities, strict=True))


@settings(deadline=None, derandomize=True)
@given(CLASSES, st.integers(0, 200))
def test_equal_weights_are_shared_as_evenly_as_the_capacities_allow(
    classes: list[tuple[int, int]], n: int
) -> None:
    """No class has two places more than another that still has room."""
    capacities = [c for _, c in classes]
    places = share_out(n, [1] * len(capacities), capacities)
    room = [p for p, c in zip(places, capacities, strict=True) if p < c]
    assert not room or max(places) - min(room) <= 1


def test_shares_are_proportional() -> None:
    assert share_out(20, [50, 30, 20], [50, 30, 20]) == [10, 6, 4]


def test_a_draw_does_not_depend_on_the_order_of_the_listing() -> None:
    labels = [i % 3 for i in range(60)]
    keys = [f"{i:02d}.png" for i in range(60)]
    drawn = {keys[i] for i in draw_stratified(labels, keys, 21, seed=5)}
    order = random.Random(0).sample(range(60), 60)
    again = draw_stratified([labels[i] for i in order], [keys[i] for i in order], 21, seed=5)
    assert {keys[order[i]] for i in again} == drawn
    assert again == sorted(again)


def test_another_seed_is_another_draw() -> None:
    labels, keys = [0] * 50, [str(i) for i in range(50)]
    draws = {tuple(draw_stratified(labels, keys, 10, seed=seed)) for seed in range(5)}
    assert len(draws) == 5


def test_what_a_seed_draws_is_fixed() -> None:
    """A change here changes the split of every study that exists."""
    labels, keys = [0, 1] * 10, [f"image{i}" for i in range(20)]
    assert draw_stratified(labels, keys, 6, seed=0) == [1, 5, 8, 9, 14, 16]


def test_leave_keeps_images_of_every_class() -> None:
    labels, keys = [0, 1, 1, 2, 2, 2], list("abcdef")
    drawn = draw_stratified(labels, keys, 6, seed=0, leave=1)
    assert sorted(labels[i] for i in drawn) == [1, 2, 2]
