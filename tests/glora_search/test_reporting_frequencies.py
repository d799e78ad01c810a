"""Shares of choices: counted, and expected of uniform draws with and without limits."""

from __future__ import annotations

import random
from itertools import product

import pytest
from reporting_studies import ONE_LAYER, SWIN, VIT

from glora_search.reporting.frequencies import (
    expected_shares,
    low_rank_share,
    observed_shares,
    pool,
)
from search_spaces import NO_LIMITS, LayerSpec, ParamLimits, SearchSpace, rank_of


def test_observed_shares_are_those_of_a_count_gene_by_gene() -> None:
    rng = random.Random(5)
    subnets = [SWIN.sample(rng) for _ in range(40)]
    shares = observed_shares(SWIN, subnets)
    for gene in SWIN.genes:
        chosen = [subnet.to_params()[gene.name] for subnet in subnets]
        assert shares[gene.name] == pytest.approx(
            {token: chosen.count(token) / 40 for token in set(chosen)}
        )


def test_without_limits_every_choice_of_a_gene_is_expected_alike() -> None:
    """Also for a layer without bias, which has fewer choices than the space offers."""
    shares = expected_shares(ONE_LAYER, NO_LIMITS)
    assert shares["fc.A"] == pytest.approx(dict.fromkeys(ONE_LAYER.choices["A"], 0.2))
    assert shares["fc.D"] == {"none": 1.0}
    roomy = ParamLimits(0, VIT.n_params(VIT.max_subnet()))
    assert expected_shares(VIT, roomy) == expected_shares(VIT, NO_LIMITS)


def test_within_limits_the_expected_shares_are_those_of_all_subnets_that_meet_them() -> None:
    """Against a list of every subnet; 200 draws, pooled over alike genes, come within 4 points."""
    layers = [LayerSpec(f"blocks.{k}.fc", 4, 4, bias=True) for k in range(6)]
    choices = dict.fromkeys("CDE", ("none",)) | {"A": ("lora_1", "none"), "B": ("vector", "none")}
    space = SearchSpace(layers, choices)
    limits = ParamLimits(10, 24)
    counts = {"lora_1": 0, "vector": 0}
    total = 0
    for chosen in product((0, 8), (0, 4), repeat=6):
        if not limits.allow(sum(chosen)):
            continue
        total += 1
        counts["lora_1"] += chosen[0] > 0
        counts["vector"] += chosen[1] > 0
    shares = expected_shares(space, limits)
    for gene in space.genes:
        if gene.support == "A":
            assert shares[gene.name]["lora_1"] == pytest.approx(counts["lora_1"] / total, abs=0.04)
        elif gene.support == "B":
            assert shares[gene.name]["vector"] == pytest.approx(counts["vector"] / total, abs=0.04)
    assert 0.05 < counts["lora_1"] / total < 0.35  # the limit matters: half without it


def test_limits_that_no_subnet_meets_leave_the_shares_of_the_space() -> None:
    """A report is no place to fail over limits that the search has lived with."""
    exact = ParamLimits(1, 1)
    space = SearchSpace([LayerSpec("fc", 4, 4, bias=True)], {**ONE_LAYER.choices, "A": ("lora_4",)})
    assert expected_shares(space, exact) == expected_shares(space, NO_LIMITS)


def test_pooled_shares_sum_to_one_and_low_rank_is_every_rank_together() -> None:
    rng = random.Random(2)
    shares = observed_shares(VIT, [VIT.sample(rng) for _ in range(30)])
    genes = [gene for gene in VIT.genes if gene.support == "A"]
    pooled = pool(shares, genes)
    assert sum(pooled.values()) == pytest.approx(1)
    ranks = sum(share for token, share in pooled.items() if rank_of(token))
    mean = sum(low_rank_share(shares, gene) for gene in genes) / len(genes)
    assert ranks == pytest.approx(mean)
