"""Greedy soup: which of several good subnets belong into an average.

Wortsman et al. 2022, arXiv 2203.05482: candidates are taken best first, and one stays in the
average if that is not worse with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search_spaces import SubnetConfig
from supernet.data import Split
from supernet.evaluation import evaluate_model
from supernet.network import Supernet


def greedy_soup(
    supernet: Supernet,
    subnets: Sequence[SubnetConfig],
    val: Split,
    *,
    batch_size: int = 256,
    on_candidate: Callable[[int, float], None] | None = None,
) -> list[SubnetConfig]:
    """Those of `subnets` whose average of merged weights has the lowest val loss, found greedily.

    Args:
        supernet: Trained.
        subnets: Best first, one or more; the first one always stays.
        val: The validation split, on the device of the supernet or on the CPU.
        batch_size: Images a forward.
        on_candidate: Called after each one with how many were tried, and the average's val loss.

    Returns:
        Those kept, in the order of `subnets`.

    Raises:
        InvalidConfigError: There are none, or one does not belong to the supernet's space.
    """
    kept: list[SubnetConfig] = []
    best = float("inf")
    for tried, subnet in enumerate(subnets, start=1):
        averaged = supernet.merge_average([*kept, subnet])
        loss = evaluate_model(averaged, val, batch_size=batch_size).loss
        if loss <= best:
            kept, best = [*kept, subnet], loss
        if on_candidate is not None:
            on_candidate(tried, best)
    if not kept:
        supernet.merge_average(kept)  # says what is wrong
    return kept
