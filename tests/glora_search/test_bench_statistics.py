"""Intervals and power, against figures that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glora_search.bench.statistics import (
    detectable_difference,
    deviation,
    interval,
    paired_difference,
    suite_mean,
    variance_parts,
)


def drawn(seed: int, *, tasks: int = 4, seeds: int = 5, shift: float = 0.0, spread: float = 1.0):  # type: ignore[no-untyped-def]
    """Cells whose tasks differ a lot and whose seeds differ by `spread`."""
    draws = np.random.default_rng(seed)
    return {
        (f"task {t}", s): 10 * t + shift + spread * draws.standard_normal()
        for t in range(tasks)
        for s in range(seeds)
    }


def test_a_suite_counts_every_task_alike() -> None:
    assert suite_mean({("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 8.0}) == pytest.approx(5.0)
    assert deviation({("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 8.0}) == pytest.approx(math.sqrt(2))


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """400 suites of 4 tasks and 5 seeds; the truth is 15."""
    covered = sum(
        found.low <= 15 <= found.high for found in (interval(drawn(k)) for k in range(400))
    )
    assert 0.90 <= covered / 400 <= 0.98


def test_pairing_takes_out_what_both_share() -> None:
    shared = drawn(0, spread=5.0)
    draws = np.random.default_rng(1)
    ours = {cell: value + 0.5 + 0.1 * draws.standard_normal() for cell, value in shared.items()}
    found = paired_difference(ours, shared)
    assert found is not None
    assert found.low > 0.3
    assert found.high < 0.7
    assert found.half_width < 0.1 * interval(ours).half_width


def test_only_shared_cells_are_compared() -> None:
    found = paired_difference({("a", 0): 3.0, ("a", 1): 9.0}, {("a", 0): 1.0, ("b", 0): 0.0})
    assert found is not None
    assert (found.mean, found.n) == (2.0, 1)
    assert math.isnan(found.low)
    assert paired_difference({("a", 0): 1.0}, {("b", 0): 1.0}) is None


def test_the_parts_of_the_variance_are_found() -> None:
    """Splits differ by 3 points and seeds by 2, on many tasks."""
    draws = np.random.default_rng(0)
    figures = {
        f"task {t}": [
            [0.7 + split + 0.02 * draws.standard_normal() for _ in range(3)]
            for split in 0.03 * draws.standard_normal(4)
        ]
        for t in range(200)
    }
    split_sd, seed_sd, test_sd = variance_parts(figures, dict.fromkeys(figures, 5000))
    assert split_sd == pytest.approx(0.03, rel=0.1)
    assert seed_sd == pytest.approx(0.02, rel=0.1)
    assert test_sd == pytest.approx(math.sqrt(0.7 * 0.3 / 5000), rel=0.05)


@pytest.mark.slow
def test_what_can_be_detected_is_the_half_width_of_a_paired_interval() -> None:
    widths = [
        found.half_width
        for k in range(200)
        if (found := paired_difference(drawn(k, spread=0.02), dict.fromkeys(drawn(k), 0.0)))
    ]
    expected = detectable_difference(0.02, n_tasks=4, n_cells=20)
    assert np.mean(widths) == pytest.approx(expected, rel=0.1)
    assert math.isnan(detectable_difference(0.02, n_tasks=4, n_cells=4))
