"""The tables of a comparison of several tasks: test top-1 by task, and published figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from glora_search.cli.output import Table, number

if TYPE_CHECKING:
    from glora_search.bench.layout import Means
    from glora_search.bench.table import Figure, Row
    from glora_search.operations.recorded_bench import Comparison

_METHODS_A_TABLE: Final = 6  # so that a table fits 120 columns


def task_tables(comparison: Comparison) -> list[Table]:
    """Tasks as rows and methods as columns, then the means; none for a suite of one task."""
    layout = comparison.layout
    if len(layout.whole) == 1:
        return []
    rows = comparison.rows
    parts = [
        rows[first : first + _METHODS_A_TABLE] for first in range(0, len(rows), _METHODS_A_TABLE)
    ]
    return [
        Table(
            title=f"{comparison.name}: test top-1 in %, ± deviation over seeds",
            columns=("", *(row.method for row in part)),
            rows=[
                *((task, *(percent(row.tasks.get(task)) for row in part)) for task in layout.tasks),
                *((name, *(_mean(row, told) for row in part)) for name, told in _means(comparison)),
            ],
        )
        for part in parts
    ]


def _means(comparison: Comparison) -> Iterator[tuple[str, Callable[[Means], float | None]]]:
    """Name of a mean, and where it is found."""
    layout = comparison.layout
    for name, tasks in layout.present.items():
        counted = count(len(tasks), len(layout.groups[name]))
        yield f"mean, {name} ({counted})", lambda means, name=name: means.groups[name]  # type: ignore[misc]
    mark = "" if layout.complete else " (subset)"
    if layout.mean_of_groups:
        yield f"mean of group means{mark}", lambda means: means.of_groups
    counted = count(len(layout.tasks), len(layout.whole))
    kind = "flat mean" if layout.mean_of_groups else "mean"
    yield f"{kind} of {counted} tasks", lambda means: means.of_tasks


def _mean(row: Row, told: Callable[[Means], float | None]) -> str:
    value = None if row.means is None else told(row.means)
    return number(None if value is None else 100 * value, 1)


def published_tables(comparison: Comparison) -> list[Table]:
    """Published figures and these, all of them the mean of the three group means."""
    if not comparison.published:
        return []
    layout = comparison.layout
    counted = count(len(layout.tasks), len(layout.whole))
    source = f"this comparison, {counted} tasks"
    title = "Mean of the three group means of VTAB-1k, in %"
    if not layout.complete:
        title += "; a mean over a subset does not compare with the published ones"
    return [
        Table(
            title=title,
            columns=("method", "params, millions", "mean of group means", "source"),
            rows=[
                *(
                    (
                        figure.method,
                        number(figure.n_params / 1e6, 2),
                        number(100 * figure.mean_of_groups, 1),
                        "published, ViT-B/16, 19 tasks",
                    )
                    for figure in comparison.published
                ),
                *(
                    (
                        row.method,
                        number(None if row.n_params is None else row.n_params / 1e6, 2),
                        _mean(row, lambda means: means.of_groups),
                        source,
                    )
                    for row in comparison.rows
                ),
            ],
        )
    ]


def count(part: int, whole: int) -> str:
    """A number of tasks; of how many, where they are a subset."""
    return str(whole) if part == whole else f"{part} of {whole}"


def percent(figure: Figure | None) -> str:
    """A figure with its deviation over seeds, where there is one."""
    if figure is None:
        return "-"
    spread = f" ± {100 * figure.sd:.1f}" if figure.sd == figure.sd else ""
    return f"{100 * figure.mean:.1f}{spread}"
