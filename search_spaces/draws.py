"""Uniform draws from a product of choices under a limit on their total cost.

One function serves every random decision of a search: a random subnet (all choices of all genes), a
mutation (all choices of the redrawn genes), a crossover (the two parents' tokens of each gene).
Each must be uniform among the combinations that meet the parameter limits, also where one
combination in a million does.

The method is rejection from a tilted product. Let c be a combination's cost and U the limit. Genes
are drawn independently with weights exp(-t c_gene), and a combination with c <= U is accepted with
probability exp(-t (U - c)). The two factors cancel: whatever t >= 0, accepted combinations are
exactly uniform, so no gene and no layer is favoured. Acceptance is most frequent where the tilted
mean cost equals U (there log Z(t) + t U, with Z the sum of the weights, has its minimum), so t is
solved for that; a rough solution does. The lower limit is the same with signs exchanged. Two cases
need no rejection: a limit that admits every combination, and a product small enough to list.

Choices may have weights. Then a combination is drawn in proportion to the product of its weights,
which multiply those of the tilt and change nothing else.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from operator import getitem, mul

from search_spaces.errors import InfeasibleLimitError

_Weighted = tuple[tuple[int, ...], tuple[float, ...]]
"""The costs and the weights of a gene's choices."""

_MAX_DRAWS = 20_000
_LISTED = 512  # products up to this size are listed: as fast as solving for t, and it cannot miss


@dataclass(frozen=True)
class ParamLimits:
    """Inclusive limits on a subnet's trainable adapter scalars; the head does not count.

    Raises:
        InfeasibleLimitError: The minimum is above the maximum, or the maximum below zero.
    """

    min_params: int = 0
    max_params: int | None = None

    def __post_init__(self) -> None:
        if self.max_params is not None and self.max_params < max(self.min_params, 0):
            raise InfeasibleLimitError(
                f"max_params must be at least min_params and 0; got min_params={self.min_params}, "
                f"max_params={self.max_params}"
            )

    def allow(self, n_params: int) -> bool:
        """Whether a subnet of `n_params` scalars is within the limits."""
        return self.min_params <= n_params and (
            self.max_params is None or n_params <= self.max_params
        )

    def after(self, n_params: int) -> ParamLimits:
        """The limits on what remains to be chosen once `n_params` scalars are spent.

        Raises:
            InfeasibleLimitError: What is spent exceeds the maximum already.
        """
        rest = None if self.max_params is None else self.max_params - n_params
        return ParamLimits(max(self.min_params - n_params, 0), rest)


NO_LIMITS = ParamLimits()
"""The limits that every subnet is within."""


def check_feasible(costs: Sequence[Sequence[int]], limits: ParamLimits) -> None:
    """Raise InfeasibleLimitError where the smallest or largest combination is outside `limits`."""
    _check_extremes(sum(map(min, costs)), sum(map(max, costs)), limits)


def _check_extremes(smallest: int, largest: int, limits: ParamLimits) -> None:
    if limits.max_params is not None and smallest > limits.max_params:
        raise InfeasibleLimitError(
            f"max_params={limits.max_params:,} admits no subnet: the smallest has {smallest:,}; "
            f"raise max_params or add cheaper choices"
        )
    if largest < limits.min_params:
        raise InfeasibleLimitError(
            f"min_params={limits.min_params:,} admits no subnet: the largest has {largest:,}; "
            f"lower min_params or add larger choices"
        )


def draw(
    costs: Sequence[tuple[int, ...]],
    rng: random.Random,
    limits: ParamLimits = NO_LIMITS,
    *,
    weights: Sequence[tuple[float, ...]] | None = None,
    max_draws: int = _MAX_DRAWS,
) -> list[int]:
    """Draw one combination among those whose total cost is within the limits, uniformly or in
    proportion to its weights.

    Args:
        costs: For each gene the cost of each of its choices.
        rng: The only source of randomness.
        limits: Inclusive limits on the sum of the chosen costs.
        weights: For each gene the weight of each of its choices, above 0; None for a uniform draw.
        max_draws: How many combinations are tried before giving up; fewer where a caller has
            another way out.

    Returns:
        For each gene the index of the choice drawn.

    Raises:
        InfeasibleLimitError: No combination is within the limits, or so few are (a narrow window
            between min_params and max_params) that a bounded number of draws met none.
    """
    smallest, largest = sum(map(min, costs)), sum(map(max, costs))
    _check_extremes(smallest, largest, limits)
    if limits.allow(smallest) and limits.allow(largest):
        if weights is None:
            return [int(rng.random() * len(options)) for options in costs]
        return [_pick(list(accumulate(each)), rng) for each in weights]
    if math.prod(map(len, costs)) <= _LISTED:
        return _draw_listed(costs, rng, limits, weights)
    genes = list(zip(costs, weights or [(1.0,) * len(each) for each in costs], strict=True))
    lower, upper = limits.min_params, limits.max_params
    tilt = _tilt(genes, lower, upper)
    # exp(-t (bound - c)) with the bound that the tilt leans on; 1 where there is no tilt.
    bound = lower if tilt < 0 or upper is None else upper
    tables = {gene: list(accumulate(_tilted(gene, tilt))) for gene in set(genes)}
    for _ in range(max_draws):
        chosen = [_pick(tables[gene], rng) for gene in genes]
        total = sum(options[k] for options, k in zip(costs, chosen, strict=True))
        if not limits.allow(total):
            continue
        if tilt == 0 or rng.random() < math.exp(-tilt * (bound - total)):
            return chosen
    raise InfeasibleLimitError(f"{max_draws:,} draws met no subnet with {_window(limits)}")


def _draw_listed(
    costs: Sequence[tuple[int, ...]],
    rng: random.Random,
    limits: ParamLimits,
    weights: Sequence[tuple[float, ...]] | None,
) -> list[int]:
    indices = product(*(range(len(options)) for options in costs))
    allowed = [
        chosen
        for chosen, priced in zip(indices, product(*costs), strict=True)
        if limits.allow(sum(priced))
    ]
    if not allowed:
        raise InfeasibleLimitError(f"there is no subnet with {_window(limits)}")
    if weights is None:
        return list(rng.choice(allowed))
    likely = [math.prod(map(getitem, weights, chosen)) for chosen in allowed]
    return list(rng.choices(allowed, likely)[0])


def _window(limits: ParamLimits) -> str:
    upper = "any number of" if limits.max_params is None else f"{limits.max_params:,}"
    return f"{limits.min_params:,} to {upper} parameters; widen the limits"


def _pick(cumulative: list[float], rng: random.Random) -> int:
    return min(bisect(cumulative, rng.random() * cumulative[-1]), len(cumulative) - 1)


def _tilted(gene: _Weighted, tilt: float) -> list[float]:
    """The weights of a gene's choices, times those of the tilt."""
    options, weights = gene
    least = min(tilt * cost for cost in options)  # the largest exponential is 1: nothing overflows
    return [
        weight * math.exp(least - tilt * cost)
        for cost, weight in zip(options, weights, strict=True)
    ]


def _tilt(genes: Sequence[_Weighted], lower: int, upper: int | None) -> float:
    """The t at which the mean cost meets the limit that the untilted mean violates; else 0."""
    groups = Counter(genes)

    def mean(tilt: float) -> float:
        total = 0.0
        for gene, count in groups.items():
            weights = _tilted(gene, tilt)
            total += count * sum(map(mul, weights, gene[0])) / sum(weights)
        return total

    untilted = mean(0.0)
    if upper is not None and untilted > upper:
        return _solve(lambda t: mean(t) - upper, scale=max(max(o) for o, _ in groups))
    if untilted < lower:
        return -_solve(lambda t: lower - mean(-t), scale=max(max(o) for o, _ in groups))
    return 0.0


def _solve(excess: Callable[[float], float], scale: int) -> float:
    """A t > 0 with excess(t) near 0, for a decreasing `excess`. Doubling, then bisection."""
    low, high = 0.0, 1.0 / max(scale, 1)
    for _ in range(40):  # 2**40 / scale: beyond it only the extreme combination has weight
        if excess(high) <= 0:
            break
        low, high = high, 2 * high
    for _ in range(6):  # the acceptance is flat around its maximum: a few per cent off cost nothing
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high
