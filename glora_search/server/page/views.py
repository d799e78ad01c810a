"""What the pages show, gathered from what was read: plain values for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from glora_search.operations.status import ListedStudy
from glora_search.reporting import formatting
from glora_search.reporting.snapshot import Snapshot
from glora_search.reporting.summary import key_numbers, summary_sentences
from glora_search.server.page.choices import survival_charts
from glora_search.server.page.figures import (
    Compared,
    comparison_chart,
    fronts_chart,
    history_chart,
    trade_off_chart,
)
from glora_search.server.page.fronts import front_of, shared_growth
from glora_search.server.page.layers import subnet_tables
from glora_search.server.page.states import State, state_of
from glora_search.server.page.workers import worker_lines
from glora_search.study.objectives import OBJECTIVES, TOP1, Objective, Objectives
from glora_search.study.toml_text import toml_text
from search_spaces import SUPPORTS

_LISTED: Final = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the list of studies.

    Args:
        name: The study, or a sweep.
        href: Its page; None for what has none.
        state: How it is.
        done: Evaluations that gave figures.
        failed: Those that failed.
        planned: How many there will be.
        best: The best fitness as text; empty before there is one.
        fitness: What it optimises.
        spark: The course of the best as a path.
        held_by: Who drives it.
        fault: Why it cannot be read.
    """

    name: str
    href: str | None
    state: State
    done: int
    failed: int
    planned: int | None
    best: str
    fitness: str
    spark: str
    held_by: str | None
    fault: str | None

    @property
    def comparable(self) -> bool:
        """Whether it can stand in a comparison."""
        return self.href is not None and self.done > 0


def page_of(name: str) -> str:
    """The address of a study's page."""
    return f"/studies/{quote(name, safe='')}"


def best_text(value: float | None, measure: Objective) -> str:
    """A value of the fitness with its unit, where it has one: `0.3365`, `85.8 %`."""
    if value is None:
        return ""
    return formatting.percent(value) if measure is TOP1 else measure.text(value)


def measure_of(study: ListedStudy) -> Objective | None:
    """The fitness of a study; None where it is no single figure, as that of a sweep."""
    return OBJECTIVES.get(study.fitness.removeprefix("val ").partition(",")[0])


def row_of(study: ListedStudy, *, spark: str, said: str | None) -> Row:
    """The line of a study, or of a sweep, whose name no page has.

    Args:
        study: As operations list it.
        spark: The course of the best as a path.
        said: The last line of its log; None where that is not known.
    """
    measure = measure_of(study)
    best = study.best_text.strip("-") if measure is None else best_text(study.best, measure)
    return Row(
        name=study.study,
        href=None if "/" in study.study or study.fault else page_of(study.study),
        state=state_of(
            study.status,
            held_by=study.held_by,
            failed=study.failed,
            max_failures=study.max_failures,
            fault=study.fault,
            said=said,
        ),
        done=study.evaluated,
        failed=study.failed,
        planned=study.planned,
        best=best,
        fitness=study.fitness if measure is None else measure.title,
        spark=spark,
        held_by=study.held_by,
        fault=study.fault,
    )


def unlaunched_view(name: str, planned: int | None, table: dict[str, Any]) -> dict[str, Any]:
    """What the page of a study shows before it has a record: created, or just started."""
    return {
        "name": name,
        "base": page_of(name),
        "snapshot": None,
        "done": 0,
        "failed": 0,
        "planned": planned,
        "key_numbers": (),
        "sentences": ("Nothing has been evaluated yet.",),
        "export": None,
        "front": None,
        "study_text": toml_text(table),
    }


def frame_view(name: str, done: int, failed: int, study: dict[str, Any]) -> dict[str, Any]:
    """What the page of a large study shows before its outcomes are read.

    Args:
        name: The study.
        done: Evaluations that gave figures.
        failed: Those that failed.
        study: The stored study file.
    """
    search = study.get("search") or {}
    planned = search.get("population", 0) * (search.get("generations", 0) + 1)
    return {
        **unlaunched_view(name, planned or None, study),
        "done": done,
        "failed": failed,
        "sentences": (f"Reading {done + failed:,} outcomes …",),
    }


def study_view(snapshot: Snapshot, planned: int | None) -> dict[str, Any]:
    """What the page of a study shows of its data.

    Args:
        snapshot: The study.
        planned: How many evaluations it asks for; None where that is not stored.
    """
    measure = snapshot.objectives.each[0]
    trials, complete = snapshot.trials, snapshot.complete
    winner, front = snapshot.winner, front_of(snapshot)
    return {
        "name": snapshot.name,
        "base": page_of(snapshot.name),
        "snapshot": snapshot,
        "done": len(complete),
        "failed": len(trials) - len(complete),
        "planned": planned,
        "key_numbers": key_numbers(snapshot),
        "sentences": summary_sentences(snapshot),
        "history": history_chart(trials, measure) if trials else None,
        # Of two objectives the front takes its place: both would make the page too large.
        "trade_off": trade_off_chart(trials, winner) if complete and front is None else None,
        "front": front,
        "survival": survival_charts(snapshot.space, trials, snapshot.objectives)
        if complete
        else (),
        "winner": None
        if winner is None
        else subnet_tables(snapshot.space, winner, complete[winner]),
        "failures": snapshot.failures,
        "top": snapshot.ranking[:_LISTED],
        "workers": worker_lines(trials),
        "export": snapshot.facts.export,
        "study_text": toml_text(snapshot.facts.study),
        "supports": SUPPORTS,
    }


def differing(studies: Sequence[Snapshot]) -> list[tuple[str, list[str]]]:
    """The keys of the study files that differ, with the value of each study."""
    tables = [dict(_flat("", snapshot.facts.study)) for snapshot in studies]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [table.get(key, "–") for table in tables]) for key in keys]  # noqa: RUF001
    return [(key, values) for key, values in rows if len(set(values)) > 1 and key != "study.name"]


def comparison_view(studies: Sequence[tuple[Snapshot, State]]) -> dict[str, Any]:
    """What the page of a comparison shows; studies of one fitness share a chart."""
    by_measure: dict[Objective, list[Compared]] = {}
    by_objectives: dict[Objectives, list[Compared]] = {}
    complete = []
    for place, (snapshot, _) in enumerate(studies):
        compared = Compared(place, snapshot.name, snapshot.trials)
        by_measure.setdefault(snapshot.objectives.each[0], []).append(compared)
        if snapshot.objectives.are_two:
            by_objectives.setdefault(snapshot.objectives, []).append(compared)
        if snapshot.complete:
            complete.append(Compared(place, snapshot.name, snapshot.complete))
    grown = [shared_growth(found, objectives) for objectives, found in by_objectives.items()]
    return {
        "charts": [(m, comparison_chart(found, m)) for m, found in by_measure.items()],
        "growths": [each for each in grown if each is not None],
        "front": fronts_chart(complete) if complete else None,
        "columns": [_column(snapshot, state) for snapshot, state in studies],
        "differing": differing([snapshot for snapshot, _ in studies]),
    }


def _column(snapshot: Snapshot, state: State) -> dict[str, Any]:
    export, winner = snapshot.facts.export, snapshot.winner
    return {
        "name": snapshot.name,
        "href": page_of(snapshot.name),
        "state": state,
        "done": len(snapshot.complete),
        "failed": len(snapshot.trials) - len(snapshot.complete),
        "winner": None if winner is None else snapshot.complete[winner],
        "n_val": snapshot.facts.n_val,
        "test": None if export is None else export.test,
        "work_s": sum(outcome.eval_s for outcome in snapshot.trials.values()),
    }


def _flat(prefix: str, table: Any) -> list[tuple[str, str]]:
    found = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += _flat(f"{prefix}{key}.", value)
        else:
            found.append((f"{prefix}{key}", "none" if value is None else str(value)))
    return found
