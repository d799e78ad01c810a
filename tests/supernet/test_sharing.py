"""The walk over a batch: every subnet once, nothing computed twice that could be kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.sharing import Path, Step, shared_blocks, walk

ROOM = 100
BLOCKS = 4
tokens = st.sampled_from(("lora_2", "vector", "none"))
paths_of_batches = st.lists(st.tuples(*[st.tuples(tokens)] * BLOCKS), max_size=12)


def distinct_prefixes(paths: list[Path]) -> int:
    """The block evaluations that a batch needs at least."""
    return len({path[:d] for path in paths for d in range(1, BLOCKS + 1)})


def replay(paths: list[Path], steps: list[Step]) -> None:
    """Walk as an evaluator does; each boundary must be there, and be that of the same blocks."""
    kept: dict[int, Path] = {}
    for step in steps:
        path = paths[step.position]
        if step.start:
            assert kept[step.start] == path[: step.start]
        made = {d: path[:d] for d in range(step.start + 1, BLOCKS + 1)}
        kept = {d: prefix for d, prefix in (kept | made).items() if d in step.keep}
        assert kept.keys() == step.keep


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(paths_of_batches)
def test_no_block_is_computed_twice(paths: list[Path]) -> None:
    steps = walk(paths, ROOM)
    assert sorted(step.position for step in steps) == list(range(len(paths)))
    replay(paths, steps)
    assert len(paths) * BLOCKS - shared_blocks(steps) == distinct_prefixes(paths)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(paths_of_batches, st.integers(0, BLOCKS))
def test_no_more_is_kept_than_there_is_room_for(paths: list[Path], capacity: int) -> None:
    """Less is shared then, and never the activations of other blocks."""
    steps = walk(paths, capacity)
    replay(paths, steps)
    assert max((len(step.keep) for step in steps), default=0) <= capacity
    assert shared_blocks(steps) <= shared_blocks(walk(paths, ROOM))
    if capacity >= BLOCKS:
        assert shared_blocks(steps) == shared_blocks(walk(paths, ROOM))


def test_room_for_one_boundary_serves_the_next_subnet() -> None:
    """The deepest is kept, which saves most, though two others branch off before it."""
    a, b = ("a",), ("b",)
    paths = [(a, a, a, a), (a, a, a, b), (a, b, a, a)]
    assert [step.start for step in walk(paths, ROOM)] == [0, 3, 1]
    assert [step.start for step in walk(paths, 1)] == [0, 3, 0]


def test_nothing_is_kept_after_the_last() -> None:
    a = (("a",),) * BLOCKS
    assert [step.keep for step in walk([a, a, a], ROOM)] == [{BLOCKS}, {BLOCKS}, set()]
    assert walk([], ROOM) == []
    assert walk([a], ROOM) == [Step(0, 0, frozenset())]


@pytest.mark.parametrize("seed", range(5))
def test_the_walk_does_not_depend_on_the_order_of_the_batch(seed: int) -> None:
    """So neither do the seconds that a search takes."""
    rng = random.Random(seed)
    paths = [tuple((rng.choice("ab"),) for _ in range(BLOCKS)) for _ in range(20)]
    shuffled = rng.sample(paths, len(paths))
    one, other = walk(paths, ROOM), walk(shuffled, ROOM)
    assert [paths[s.position] for s in one] == [shuffled[s.position] for s in other]
    assert [(s.start, s.keep) for s in one] == [(s.start, s.keep) for s in other]
