"""Plans how the subnets of a batch share activations: equal first blocks are computed once.

The subnets are sorted by their configurations, block by block, and evaluated in this order, as in a
walk through a trie. Activations are kept at each boundary where a later subnet branches off; the
forward of that subnet starts there. Legend: boundary `d` lies after the first `d` blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Path = tuple[tuple[str, ...], ...]
"""The tokens of a subnet, block by block: what its boundaries depend on, first to last."""


@dataclass(frozen=True)
class Step:
    """One subnet of a walk.

    Args:
        position: Its position in the batch.
        start: The boundary from which its forward goes on; at 0 all blocks are to be computed.
        keep: The boundaries that later subnets need, those that were kept before included.
    """

    position: int
    start: int
    keep: frozenset[int]


def walk(paths: Sequence[Path], capacity: int) -> list[Step]:
    """The order in which a batch is evaluated, and what each shares with those before it.

    Args:
        paths: Of all subnets of the batch.
        capacity: How many boundaries can be kept at a time.
    """
    order = sorted(range(len(paths)), key=lambda position: paths[position])
    common = [_common_length(paths[one], paths[other]) for one, other in pairwise(order)]
    steps: list[Step] = []
    held: frozenset[int] = frozenset()
    for place, position in enumerate(order):
        start = max((d for d in held if d <= common[place - 1]), default=0) if place else 0
        wanted = [d for d in _branches(common[place:]) if d > start or d in held]
        # Where not all can be kept: the deepest save most, and are done with soonest.
        held = frozenset(sorted(wanted)[-capacity:] if capacity > 0 else ())
        steps.append(Step(position, start, held))
    return steps


def shared_blocks(steps: Iterable[Step]) -> int:
    """How many evaluations of a block a walk does without."""
    return sum(step.start for step in steps)


def _branches(common: Iterable[int]) -> set[int]:
    """The boundaries of a subnet at which one of those after it branches off: each new minimum of
    what neighbours have in common.
    """
    found: set[int] = set()
    for boundary in common:
        if boundary == 0:
            break
        if not found or boundary < min(found):
            found.add(boundary)
    return found


def _common_length(one: Path, other: Path) -> int:
    length = 0
    for mine, others in zip(one, other, strict=True):
        if mine != others:
            break
        length += 1
    return length
