"""What `compare` and `bench` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glora_search.cli.output import Output, number
from glora_search.cli.task_tables import count, percent, published_tables, task_tables

if TYPE_CHECKING:
    from glora_search.bench.power import SuitePower
    from glora_search.bench.table import Row
    from glora_search.operations.recorded_bench import Comparison


def comparison_output(comparison: Comparison) -> Output:
    """One row a method; then, of several tasks, one row a task; then published figures."""
    return Output(
        document=comparison.to_json(),
        title=f"{comparison.name}: {_mean_name(comparison)}; top-1 in %, ± deviation over seeds",
        columns=(
            *("method", "runs", "params", "val top-1", "test top-1", "test loss"),
            *("difference [95%]", "train s", "MB", "merges", "forward"),
        ),
        rows=[_row(row, comparison.reference) for row in comparison.rows],
        lines=[
            f"difference: test top-1 less that of {comparison.reference}, in points, paired by "
            "task and seed, with its 95% bootstrap interval.",
            "params: trainable ones without the head. MB: activations, gradients and moments of a "
            "training step.",
            "train s: of a training; core seconds where it is done by a CPU.",
            "forward: time of what is left behind, as a ratio to the plain backbone.",
            *(
                f"{r.method}: {r.n_failed} runs failed: {r.error}"
                for r in comparison.rows
                if r.error
            ),
        ],
        more=[*task_tables(comparison), *published_tables(comparison)],
    )


def _mean_name(comparison: Comparison) -> str:
    """What the first table's figures are, in words."""
    layout, n_tasks = comparison.layout, len(comparison.tasks)
    if len(layout.whole) == 1:
        return comparison.tasks[0]
    kind = "flat mean" if layout.mean_of_groups else "mean"
    return f"{kind} of {count(n_tasks, len(layout.whole))} tasks"


def _row(row: Row, reference: str) -> tuple[str, ...]:
    difference = "-"
    if row.method != reference and row.difference is not None:
        found = row.difference
        difference = "one seed"  # without an interval a difference says nothing
        if found.low == found.low:
            low, high = 100 * found.low, 100 * found.high
            difference = f"{100 * found.mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return (
        row.method,
        str(row.n_runs),
        number(row.n_params, 0),
        percent(row.val_top1),
        percent(row.test_top1),
        number(None if row.test_loss is None else row.test_loss.mean, 3),
        difference,
        number(row.train_s, 1),
        number(row.memory_mb, 1),
        "-" if row.merges is None else ("yes" if row.merges else "no"),
        number(row.forward_ratio, 2),
    )


def power_output(power: SuitePower) -> Output:
    """The smallest difference that the suite finds, by number of seeds."""
    n_tasks = len(power.tasks)
    return Output(
        document=power.to_json(),
        title=f"{' against '.join(power.methods)}, {n_tasks} tasks, {power.n_splits} draws of the "
        f"data, {power.n_seeds} seeds each",
        columns=("seeds", "runs a method", "core minutes", "detectable difference, points"),
        rows=[
            (
                str(k),
                str(k * n_tasks),
                number(k * n_tasks * power.minutes_per_cell, 0),
                number(100 * points, 2),
            )
            for k, points in power.detectable.items()
        ],
        lines=[
            f"standard deviation of test top-1, in points: {100 * power.split_sd:.2f} between "
            f"draws of the data (of which {100 * power.test_sd:.2f} is the number of test images), "
            f"{100 * power.seed_sd:.2f} between seeds, "
            f"{100 * power.pair_sd:.2f} of the difference of the two methods in one cell.",
            "detectable: half the 95% interval of a paired difference of two suite means.",
        ],
    )
