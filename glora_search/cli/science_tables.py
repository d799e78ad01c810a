"""What `bench science` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glora_search.cli.output import Output, Table, number
from glora_search.cli.task_tables import percent

if TYPE_CHECKING:
    from glora_search.bench.science.tables import FrontTable, RankTable, ScienceTable
    from glora_search.bench.statistics import Interval
    from glora_search.bench.table import Row
    from glora_search.operations.science import Science


def science_output(found: Science) -> Output:
    """One table a part."""
    tables = [_table(table) for table in found.tables.values()]
    if found.ranks is not None:
        tables.append(_ranks(found.ranks))
    if found.needed:
        tables.append(_needed(found.needed))
    if found.flattery:
        tables.append(_flattery(found.flattery))
    if found.fronts is not None:
        tables.append(_fronts(found.fronts))
    return Output(
        document=found.to_json(),
        lines=[
            "difference: less the row without one, paired by task and seed, with its 95% bootstrap "
            "interval; of top-1 in points.",
            "calibrated: the test loss after a temperature was fitted on val.",
            "core s: of a cell, with the training of the supernet where there is one.",
        ],
        more=tables,
    )


def _table(table: ScienceTable) -> Table:
    return Table(
        title=table.name,
        columns=(
            *("", "cells", "params", "test top-1", "difference [95%]"),
            *("test loss", "difference [95%]", "calibrated", "difference [95%]"),
            *("val loss difference [95%]", "core s"),
        ),
        rows=[_row(table, row) for row in table.rows],
    )


def _row(table: ScienceTable, row: Row) -> tuple[str, ...]:
    return (
        row.method,
        str(row.n_runs),
        number(row.n_params, 0),
        percent(row.test_top1),
        between(row.difference, 100, 1),
        number(None if row.test_loss is None else row.test_loss.mean, 3),
        between(row.loss_difference, 1, 3),
        number(table.calibrated.get(row.method), 3),
        between(table.calibrated_differences.get(row.method), 1, 3),
        between(table.val_differences.get(row.method), 1, 3),
        number(table.seconds.get(row.method), 0),
    )


def between(found: Interval | None, factor: float, digits: int) -> str:
    """A difference with its interval; a dash where there is none, and a word where one seed tells
    nothing of it.
    """
    if found is None:
        return "-"
    if found.low != found.low:
        return "one seed"
    mean, low, high = factor * found.mean, factor * found.low, factor * found.high
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _ranks(ranks: RankTable) -> Table:
    names = {
        "inherited": "inherited from the supernet",
        "tenth": "from a tenth of its training",
        "untrained": "from the untrained one",
    }
    return Table(
        title=f"Kendall's tau with the val loss of training alone, {ranks.subnets} subnets a cell",
        columns=("weights", "cells", "tau [95%]", "tau among the best fifth [95%]"),
        rows=[
            (
                names[name],
                str(tau.n),
                between(tau, 1, 2),
                between(ranks.top_taus[name], 1, 2),
            )
            for name, tau in ranks.taus.items()
        ],
    )


def _needed(needed: dict[str, Interval]) -> Table:
    return Table(
        title="evaluations until the val loss at which evolution ends; twice the number made where "
        "a sampler does not get there",
        columns=("sampler", "evaluations", "[95%]"),
        rows=[
            (name, number(found.mean, 0), f"[{found.low:.0f}, {found.high:.0f}]")
            for name, found in needed.items()
        ],
    )


def _flattery(flattery: dict[str, Interval]) -> Table:
    return Table(
        title="loss on the half of val that the search did not see, less that on the half it saw",
        columns=("subnet", "cells", "difference [95%]"),
        rows=[(name, str(gap.n), between(gap, 1, 4)) for name, gap in flattery.items()],
    )


def _fronts(fronts: FrontTable) -> Table:
    return Table(
        title=f"val loss and parameters after {fronts.evaluations} evaluations: hypervolume in "
        f"nats, and its difference to {fronts.reference!r}",
        columns=(
            *("search", "cells", "hypervolume", "[95%]"),
            *("difference [95%]", "halfway [95%]", "core s"),
        ),
        rows=[
            (
                name,
                str(found.n),
                number(found.mean, 4),
                "one seed" if found.low != found.low else f"[{found.low:.4f}, {found.high:.4f}]",
                between(fronts.differences.get(name), 1, 4),
                between(fronts.halfway.get(name), 1, 4),
                number(fronts.seconds[name], 0),
            )
            for name, found in fronts.volumes.items()
        ],
    )
