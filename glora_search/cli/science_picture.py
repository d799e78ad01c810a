"""The picture of `bench science`: test top-1 against adapter parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from glora_search.bench.science.tables import ScienceTable
    from glora_search.bench.table import Row

_INK: Final = "#808080"  # readable on white and on black
_STYLES: Final = {
    "winner": ("#d9480f", "o", "-"),
    "lora": ("#1c7ed6", "s", "--"),
    "fact-tk": ("#2b8a3e", "^", "--"),
    "adaptformer": ("#9c36b5", "v", "--"),
}
"""Method to colour, marker and line; other methods are grey."""


def draw_budgets(table: ScienceTable, path: Path) -> None:
    """Draw a line a method, as SVG on a transparent ground.

    Args:
        table: Of the part `budgets`: its rows are called `METHOD xFACTOR`.
        path: Of the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.2, 3.8), layout="constrained")
    axes = canvas.subplots()
    for method, rows in _by_method(table).items():
        colour, marker, line = _STYLES.get(method, (_INK, "d", ":"))
        points = [(row.n_params, *_difference(row)) for row in rows]
        sizes, means, lows, highs = zip(*points, strict=True)
        axes.errorbar(
            sizes,
            means,
            yerr=(
                [m - low for m, low in zip(means, lows, strict=True)],
                [high - m for m, high in zip(means, highs, strict=True)],
            ),
            label=method,
            color=colour,
            marker=marker,
            linestyle=line,
            capsize=3,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
    axes.set_xlabel("adapter parameters", color=_INK)
    axes.set_ylabel(f"test top-1 less that of\n{table.reference}, points", color=_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.grid(color=_INK, alpha=0.25)
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.legend(labelcolor=_INK, framealpha=0, loc="best")
    # A fixed salt and no date: the same table gives the same file.
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "glora-search", "svg.fonttype": "none"}):
        canvas.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _by_method(table: ScienceTable) -> dict[str, list[Row]]:
    methods: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.test_top1 is not None:
            methods.setdefault(row.method.rpartition(" x")[0], []).append(row)
    return methods


def _difference(row: Row) -> tuple[float, float, float]:
    """In points, with its interval; the reference differs from itself by nothing, and one seed has
    no interval.
    """
    found = row.difference
    if found is None:
        return 0.0, 0.0, 0.0
    ends = (found.low, found.high) if found.low == found.low else (found.mean, found.mean)
    return 100 * found.mean, 100 * ends[0], 100 * ends[1]
