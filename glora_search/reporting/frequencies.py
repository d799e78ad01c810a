"""How often each token is chosen: by given subnets, and by uniform draws from the search space.

Shares are kept per gene (a support tensor of a layer) and pooled afterwards. Each gene has one
token in each subnet, so the share of a group of genes is the mean of their shares.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from search_spaces import (
    Gene,
    InfeasibleLimitError,
    LayerConfig,
    ParamLimits,
    SearchSpace,
    SubnetConfig,
    rank_of,
)

Shares: TypeAlias = Mapping[str, Mapping[str, float]]
"""Gene name to token to the fraction of subnets that chose it; the fractions of a gene sum to 1."""

_DRAWS: Final = 200


def observed_shares(space: SearchSpace, subnets: Sequence[SubnetConfig]) -> Shares:
    """The shares among `subnets`, at least one, of `space`."""
    shares: dict[str, dict[str, float]] = {}
    for layer in space.layers:
        # A layer has few distinct configurations: counted whole, and only then taken apart.
        configs: Counter[LayerConfig] = Counter(subnet.layers[layer.name] for subnet in subnets)
        for config, n in configs.items():
            for support, token in config.items():
                gene = shares.setdefault(f"{layer.name}.{support}", {})
                gene[token] = gene.get(token, 0.0) + n / len(subnets)
    return shares


def expected_shares(space: SearchSpace, limits: ParamLimits) -> Shares:
    """The shares among all subnets of `space` within `limits`, each counted alike.

    Without a limit that matters they are known: one over the number of choices. Else they are
    estimated from 200 uniform draws with a fixed seed. Genes with the same choices at the same
    costs have the same shares, so these are pooled, which makes the estimate as sharp as it has to
    be.
    """
    smallest, largest = (sum(map(f, space.costs)) for f in (min, max))
    if limits.allow(smallest) and limits.allow(largest):
        return {
            gene.name: dict.fromkeys(gene.choices, 1 / len(gene.choices)) for gene in space.genes
        }
    rng = random.Random(0)
    try:
        drawn = observed_shares(space, [space.sample(rng, limits) for _ in range(_DRAWS)])
    except InfeasibleLimitError:  # a window so narrow that draws miss it says nothing of shares
        return expected_shares(space, ParamLimits())
    alike: dict[tuple[tuple[str, ...], tuple[int, ...]], list[Gene]] = defaultdict(list)
    for gene in space.genes:
        alike[gene.choices, gene.costs].append(gene)
    return {
        gene.name: pooled
        for genes in alike.values()
        for pooled in [pool(drawn, genes)]
        for gene in genes
    }


def pool(shares: Shares, genes: Iterable[Gene]) -> dict[str, float]:
    """The shares of the tokens over all of `genes`, at least one."""
    pooled: dict[str, float] = {}
    names = [gene.name for gene in genes]
    for name in names:
        for token, share in shares[name].items():
            pooled[token] = pooled.get(token, 0.0) + share / len(names)
    return pooled


def low_rank_share(shares: Shares, gene: Gene) -> float:
    """The fraction of subnets that chose any rank for `gene`."""
    return sum(share for token, share in shares[gene.name].items() if rank_of(token))
