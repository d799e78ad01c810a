"""What differences a suite can find: from two methods, trained several times on several draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from glora_search.bench.runs import RunResult
from glora_search.bench.statistics import detectable_difference, variance_parts

_SEEDS: Final = (2, 3, 5, 10, 20)


@dataclass(frozen=True, kw_only=True)
class SuitePower:
    """What a suite can tell apart. All figures are fractions of test top-1.

    Args:
        methods: The two that were trained.
        tasks: Names.
        n_splits: Draws of the data a task.
        n_seeds: Trainings a draw.
        split_sd: Standard deviation of a figure from one draw of the data to another.
        seed_sd: Standard deviation from one training seed to another, on the same data.
        test_sd: Standard error that the number of test images leaves, a part of `split_sd`.
        pair_sd: Standard deviation of the difference of the two methods in one cell.
        minutes_per_cell: Core minutes of one run, the mean of both methods.
        detectable: Number of seeds to the smallest difference of two suite means that a paired
            test finds at 95%.
    """

    methods: tuple[str, str]
    tasks: tuple[str, ...]
    n_splits: int
    n_seeds: int
    split_sd: float
    seed_sd: float
    test_sd: float
    pair_sd: float
    minutes_per_cell: float
    detectable: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        """As a table."""
        return asdict(self)


def suite_power(
    results: Sequence[RunResult], tasks: Sequence[str], pair: Sequence[str]
) -> SuitePower:
    """The variances of a suite, pooled over its tasks and the two methods.

    Args:
        results: One for each method, task, split and seed, with a test top-1.
        tasks: Names.
        pair: The two methods.
    """
    top1 = {
        (r.run.method, r.run.task, r.run.split, r.run.seed): r.test_top1
        for r in results
        if r.test_top1 is not None
    }
    splits = sorted({split for _, _, split, _ in top1 if split is not None})
    seeds = sorted({seed for *_, seed in top1})
    figures = {
        f"{method}/{task}": [
            [top1[method, task, split, seed] for seed in seeds] for split in splits
        ]
        for method in pair
        for task in tasks
    }
    n_test = {f"{r.run.method}/{r.run.task}": r.n_test or 1 for r in results}
    split_sd, seed_sd, test_sd = variance_parts(figures, n_test)
    # A cell of a comparison has a draw and a seed of its own: one training of each draw.
    pairs = [
        np.asarray(
            [
                top1[pair[0], task, split, seed] - top1[pair[1], task, split, seed]
                for split in splits
            ]
        ).var(ddof=1)
        for task in tasks
        for seed in seeds
    ]
    pair_sd = float(np.sqrt(np.mean(pairs)))
    return SuitePower(
        methods=(pair[0], pair[1]),
        tasks=tuple(tasks),
        n_splits=len(splits),
        n_seeds=len(seeds),
        split_sd=split_sd,
        seed_sd=seed_sd,
        test_sd=test_sd,
        pair_sd=pair_sd,
        minutes_per_cell=float(np.mean([r.total_s for r in results])) / 60,
        detectable={k: detectable_difference(pair_sd, len(tasks), k * len(tasks)) for k in _SEEDS},
    )
