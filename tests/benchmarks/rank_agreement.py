"""How two rankings of the same subnets agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from supernet import Evaluation

Key = tuple[float, ...]
_BEST = 10


def keys_of(scores: Sequence[Evaluation], fitness: str) -> list[Key]:
    """Sort keys, best first; top-1 ties are broken by loss, as in a search.

    Args:
        scores: One for each subnet.
        fitness: `loss` or `top1`.
    """
    return [(s.loss,) if fitness == "loss" else (-s.top1, s.loss) for s in scores]


def ranks_of(keys: Sequence[Key]) -> list[int]:
    """The place of each in the order of the keys, from 0."""
    ranks = [0] * len(keys)
    for rank, k in enumerate(sorted(range(len(keys)), key=keys.__getitem__)):
        ranks[k] = rank
    return ranks


def agreement(exact: Sequence[Key], found: Sequence[Key]) -> dict[str, Any]:
    """How `found` ranks beside `exact`.

    Returns:
        The share of pairs that change places (a pair that is tied in either does not), the overlap
        of the best ten, the rank in `exact` of the other's winner (1 is the best), and how many
        finalists must be scored again for the true winner to be among them.
    """
    n = len(exact)
    ranks, other = ranks_of(exact), ranks_of(found)
    swapped = sum(
        (exact[a] < exact[b] and found[b] < found[a])
        or (exact[b] < exact[a] and found[a] < found[b])
        for a, b in combinations(range(n), 2)
    )
    best = {k for k in range(n) if ranks[k] < _BEST}
    other_best = {k for k in range(n) if other[k] < _BEST}
    return {
        "swapped_pairs": round(swapped / (n * (n - 1) / 2), 5),
        "best_ten_in_common": len(best & other_best),
        "fp32_rank_of_its_winner": ranks[min(range(n), key=other.__getitem__)] + 1,
        "finalists_needed": other[min(range(n), key=ranks.__getitem__)] + 1,
    }
