"""The comparison as numbers: one row a method, and its difference to a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from glora_search.bench.layout import Layout, Means
from glora_search.bench.runs import RunResult
from glora_search.bench.statistics import (
    Cells,
    Interval,
    deviation,
    interval,
    paired_difference,
    suite_mean,
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a method over tasks and seeds.

    Args:
        mean: Over tasks of the mean over seeds.
        sd: Over seeds, within tasks; NaN for a single seed.
    """

    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a comparison says of one method.

    Args:
        method: Its name.
        n_runs: Final runs that gave figures.
        n_failed: Final runs that failed.
        n_params: Trainable scalars without the head's, mean over runs; None without any run.
        val_top1: On the validation split.
        val_loss: Likewise, nats.
        test_top1: On the test split: the flat mean over all tasks that have figures.
        test_loss: Likewise.
        test_interval: The 95% interval of `test_top1` over seeds.
        difference: Test top-1 of this method less that of the reference, paired by task and seed.
        loss_difference: Likewise of the test loss.
        train_s: Mean seconds of a training.
        memory_mb: Mean memory of a training step, MB; see `memory.training_bytes`.
        merges: Whether a plain network is left behind.
        forward_ratio: Median time of a forward of what is left behind, to the plain backbone's.
        tasks: Task, or test set, to its test top-1.
        means: Of test top-1 over groups and tasks; None without any run.
        lrs: Task to the learning rate that its sweep chose.
        error: That of the last failed run.
    """

    method: str
    n_runs: int
    n_failed: int
    n_params: float | None = None
    val_top1: Figure | None = None
    val_loss: Figure | None = None
    test_top1: Figure | None = None
    test_loss: Figure | None = None
    test_interval: Interval | None = None
    difference: Interval | None = None
    loss_difference: Interval | None = None
    train_s: float | None = None
    memory_mb: float | None = None
    merges: bool | None = None
    forward_ratio: float | None = None
    tasks: dict[str, Figure] = field(default_factory=dict)
    means: Means | None = None
    lrs: dict[str, float]
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As nested tables; what is NaN is None."""
        table: dict[str, Any] = _without_nan(asdict(self))
        return table


def comparison(
    results: Iterable[RunResult], methods: Sequence[str], reference: str, layout: Layout
) -> list[Row]:
    """One row for each method, in the order given.

    Args:
        results: Of final runs.
        methods: Names.
        reference: The method to which all others are compared.
        layout: The tasks, and which means are told.
    """
    listed = list(results)
    by_method = {m: [r for r in listed if r.run.method == m] for m in methods}
    against = by_method.get(reference, [])
    return [_row(method, by_method[method], reference, against, layout) for method in methods]


def cells(results: Iterable[RunResult], figure: Callable[[RunResult], float | None]) -> Cells:
    """(task, seed) to a figure of the runs that have it."""
    found = {(r.run.task, r.run.seed): figure(r) for r in results}
    return {cell: value for cell, value in found.items() if value is not None}


def _row(
    method: str,
    results: Sequence[RunResult],
    reference: str,
    against: Sequence[RunResult],
    layout: Layout,
) -> Row:
    fine = [r for r in results if not r.failed]
    failed = [r for r in results if r.failed]
    lrs = {r.run.task: r.run.lr for r in results}
    error = failed[-1].error if failed else None
    if not fine:
        return Row(method=method, n_runs=0, n_failed=len(failed), lrs=lrs, error=error)
    top1, loss = cells(fine, _test_top1), cells(fine, _test_loss)
    tasks = _by_task(fine, layout)
    compared = method != reference
    return Row(
        method=method,
        n_runs=len(fine),
        n_failed=len(failed),
        n_params=_mean(r.n_params for r in fine),
        val_top1=_figure(cells(fine, lambda r: r.val_top1)),
        val_loss=_figure(cells(fine, lambda r: r.val_loss)),
        test_top1=_figure(top1),
        test_loss=_figure(loss),
        test_interval=interval(top1) if top1 else None,
        difference=paired_difference(top1, cells(against, _test_top1)) if compared else None,
        loss_difference=paired_difference(loss, cells(against, _test_loss)) if compared else None,
        train_s=_mean(r.train_s for r in fine),
        memory_mb=_mean(r.memory_mb for r in fine),
        merges=fine[0].merges,
        forward_ratio=_median(r.forward_ratio for r in fine),
        tasks=tasks,
        means=layout.means({task: figure.mean for task, figure in tasks.items()}),
        lrs=lrs,
        error=error,
    )


def _by_task(results: Sequence[RunResult], layout: Layout) -> dict[str, Figure]:
    found = {}
    for task in layout.tasks:
        values = {
            (task, r.run.seed): r.top1_by_task[task] for r in results if task in r.top1_by_task
        }
        if (figure := _figure(values)) is not None:
            found[task] = figure
    return found


def _test_top1(result: RunResult) -> float | None:
    return result.test_top1


def _test_loss(result: RunResult) -> float | None:
    return result.test_loss


def _figure(values: Cells) -> Figure | None:
    return Figure(mean=suite_mean(values), sd=deviation(values)) if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
