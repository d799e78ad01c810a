"""Greedy soup: which of several good subnets belong into an average.

Wortsman et al. 2022, arXiv 2203.05482: candidates are taken best first, and one stays in the
average if that is not worse with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces import SubnetConfig
from supernet.data import Split
from supernet.evaluation import evaluate_model
from supernet.network import Supernet


def greedy_soup(
    supernet: Supernet, subnets: Sequence[SubnetConfig], val: Split, *, batch_size: int = 256
) -> list[SubnetConfig]:
    """Those of `subnets` whose average of merged weights has the lowest val loss, found greedily.

    Args:
        supernet: Trained.
        subnets: Best first, one or more; the first one always stays.
        val: The validation split, on the device of the supernet.
        batch_size: Images a forward.

    Raises:
        InvalidConfigError: There are none, or one does not belong to the supernet's space.
    """

    def loss_of(averaged: Sequence[SubnetConfig]) -> float:
        return evaluate_model(supernet.merge_average(averaged), val, batch_size=batch_size).loss

    kept = list(subnets[:1])
    best = loss_of(kept)
    for subnet in subnets[1:]:
        loss = loss_of([*kept, subnet])
        if loss <= best:
            kept, best = [*kept, subnet], loss
    return kept
