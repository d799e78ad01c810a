"""What a difference between two methods is worth: paired bootstrap intervals, and power.

Cells are (task, seed) pairs: two methods that share a cell saw the same images and the same seed.
The tasks of a suite are fixed and its seeds are drawn, so a bootstrap draws seeds anew within each
task, and the suite's figure is the mean over tasks of the mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

Cells = Mapping[tuple[str, int], float]
"""(task, seed) to a figure."""

_RESAMPLES: Final = 10_000
_LEVEL: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95% interval.

    Args:
        mean: Mean over tasks of the mean over seeds.
        low: Lower end of the interval; NaN if every task has a single seed.
        high: Likewise.
        n: Cells.
    """

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> list[float | None]:
        """Mean and ends; None for an end that one seed does not tell."""
        ends = (None if math.isnan(end) else end for end in (self.low, self.high))
        return [self.mean, *ends]

    @property
    def half_width(self) -> float:
        """Half of the interval; NaN where there is none."""
        return (self.high - self.low) / 2


def suite_mean(cells: Cells) -> float:
    """Mean over tasks of the mean over seeds."""
    return float(np.mean([np.mean(values) for values in _by_task(cells).values()]))


def deviation(cells: Cells) -> float:
    """Standard deviation over seeds, within tasks (root of the mean variance); NaN for one seed."""
    groups = [np.asarray(values) for values in _by_task(cells).values() if len(values) > 1]
    if not groups:
        return math.nan
    return float(np.sqrt(np.mean([group.var(ddof=1) for group in groups])))


def interval(cells: Cells, *, seed: int = 0) -> Interval:
    """The suite's mean with a 95% bootstrap interval over seeds.

    Drawing k values with replacement has (k - 1) / k of their variance, and a normal quantile in
    the place of Student's; deviations from a task's mean are stretched by both, so that few seeds
    do not look certain. With one seed in every task there is nothing to draw: the interval is NaN.
    """
    groups = [np.asarray(values, dtype=float) for values in _by_task(cells).values()]
    mean = float(np.mean([group.mean() for group in groups]))
    if all(len(group) == 1 for group in groups):
        return Interval(mean=mean, low=math.nan, high=math.nan, n=len(cells))
    draws = np.random.default_rng(seed)
    total = np.zeros(_RESAMPLES)
    student = _student(len(cells) - len(groups)) / float(norm.ppf((1 + _LEVEL) / 2))
    for group in groups:
        k = len(group)
        stretch = student * math.sqrt(k / (k - 1)) if k > 1 else 1.0
        deviations = (group - group.mean()) * stretch
        picked = draws.integers(k, size=(_RESAMPLES, k))
        total += group.mean() + deviations[picked].mean(axis=1)
    low, high = np.quantile(total / len(groups), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(mean=mean, low=float(low), high=float(high), n=len(cells))


def paired_difference(ours: Cells, theirs: Cells, *, seed: int = 0) -> Interval | None:
    """The mean of `ours - theirs` over the cells that both have, with its interval; None where they
    share none.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    return interval({cell: ours[cell] - theirs[cell] for cell in shared}, seed=seed)


def variance_parts(
    figures: Mapping[str, Sequence[Sequence[float]]], n_test: Mapping[str, int]
) -> tuple[float, float, float]:
    """Standard deviations of split, seed and test sampling, pooled over tasks.

    One-way random effects (split) with replication (seed): the mean square within splits is the
    seed's variance, that between splits adds k times the split's. Test sampling is binomial, and is
    part of the difference between splits only if each draws its own test images; it is reported
    apart.

    Args:
        figures: Task to top-1 by split and seed; each split has the same number of seeds, at least
            two, and there are at least two splits.
        n_test: Task to its number of test images.

    Returns:
        (split_sd, seed_sd, test_sd); a negative estimate of the split's variance counts as zero.
    """
    splits, seeds, tests = [], [], []
    for task, rows in figures.items():
        table = np.asarray(rows, dtype=float)  # (splits, seeds)
        k = table.shape[1]
        within = table.var(axis=1, ddof=1).mean()
        between = k * table.mean(axis=1).var(ddof=1)
        seeds.append(within)
        splits.append(max(0.0, (between - within) / k))
        p = table.mean()
        tests.append(p * (1 - p) / n_test[task])
    return tuple(float(np.sqrt(np.mean(part))) for part in (splits, seeds, tests))  # type: ignore[return-value]


def detectable_difference(pair_sd: float, n_tasks: int, n_cells: int) -> float:
    """The half-width of a 95% interval of a paired difference of two suite means.

    Args:
        pair_sd: Standard deviation of the difference of two methods in a cell, within tasks.
        n_tasks: Tasks, whose means take a degree of freedom each.
        n_cells: Cells, (task, seed) pairs.
    """
    freedom = n_cells - n_tasks
    return _student(freedom) * pair_sd / math.sqrt(n_cells) if freedom > 0 else math.nan


def _student(freedom: int) -> float:
    """The quantile of Student's t at which a two-sided 95% interval ends."""
    return float(student_t.ppf((1 + _LEVEL) / 2, freedom))


def _by_task(cells: Cells) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for (task, _), value in sorted(cells.items()):
        groups.setdefault(task, []).append(value)
    return groups
