"""What the commands show at their end: the same content as tables for people and as JSON for
programs.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from glora_search.recording import Database, StudyRecord, StudySummary
from glora_search.recording.storage_url import resolve_storage
from glora_search.study.finalists import from_attributes, to_attribute, winner_of
from glora_search.study.outcomes import Fitness

if TYPE_CHECKING:
    from glora_search.operations.driving import SearchResult
    from glora_search.stages.exporting import Export

_WIDTH_WITHOUT_TERMINAL = 120


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Something to show.

    Args:
        document: As JSON.
        title: The table's heading.
        columns: The table's columns; those whose first value is a number are aligned to the right.
        rows: The table's cells, as text.
        lines: What to say below the table.
    """

    document: Any
    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()

    def to_json(self) -> Any:
        """The content for programs."""
        return self.document

    def render(self) -> None:
        """Print the content for people to stdout."""
        width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
        console = Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty())
        if self.columns:
            table = Table(title=self.title or None, title_justify="left")
            for column, cells in zip(self.columns, zip(*self.rows, strict=True), strict=False):
                table.add_column(column, justify="right" if _is_number(cells[0]) else "left")
            for row in self.rows:
                table.add_row(*row)
            console.print(table)
        for line in self.lines:
            console.print(line, markup=False, soft_wrap=True)


def result_summary(result: SearchResult) -> Summary:
    """The end of a launch or a resume."""
    exported = result.export.summary()
    failed = sum(outcome.failed for outcome in result.outcomes)
    document = {
        "study": result.name,
        "evaluated": len(result.outcomes) - failed,
        "failed": failed,
        "export": exported,
    }
    winner, val = result.export.outcome, result.export.val
    return Summary(
        document=document,
        title=f"{result.name}: {len(result.outcomes) - failed} subnets evaluated, {failed} failed",
        columns=("winner", "parameters", "val loss", "val top-1", "test top-1"),
        rows=[
            (
                f"trial {exported['trial']}",
                f"{winner.candidate.n_params:,}",
                _figure(val.loss, 4),
                _figure(val.top1, 3),
                _figure(None if result.export.test is None else result.export.test.top1, 3),
            )
        ],
        lines=export_lines(result.export),
    )


def export_summary(exported: Export) -> Summary:
    """The end of an export."""
    return Summary(document=exported.summary(), lines=export_lines(exported))


def export_lines(exported: Export) -> list[str]:
    """Where an export is, and how to load it."""
    kept = [] if exported.artifact is None else [f"kept      {exported.artifact}"]
    return [
        f"exported  {exported.directory}  (trial {exported.trial}; merged and unmerged logits "
        f"differ by at most {exported.logit_difference:.1e})",
        *kept,
        f'load it   timm.create_model("local-dir:{exported.directory}", pretrained=True)',
    ]


def database_summary(storage: str | None) -> Summary:
    """All studies of a database, and all sweeps."""
    with Database.open(resolve_storage(storage), create=False) as database:
        studies, sweeps = database.list_studies(), database.list_sweeps()
        shown = database.shown
    documents = [_listed(study) for study in studies]
    documents += [
        {
            "study": sweep.name,
            "status": sweep.attributes.get("status"),
            "evaluated": len(sweep.trials) - sweep.n_failed,
            "failed": sweep.n_failed,
            "planned": sweep.attributes.get("planned"),
            "fitness": "mean val loss",
            "best": None if sweep.best is None else sweep.best[1].loss,
            "held_by": sweep.held_by,
        }
        for sweep in sweeps
    ]
    if not documents:
        return Summary(document=[], lines=[f"{shown} holds no studies"])
    columns = ("study", "status", "evaluated", "failed", "fitness", "best", "driven by")
    rows = [
        (
            d["study"],
            d["status"] or "-",
            f"{d['evaluated']} of {d['planned']}",
            str(d["failed"]),
            d["fitness"],
            _figure(d["best"], 4),
            d["held_by"] or "-",
        )
        for d in documents
        if "fault" not in d
    ]
    faults = [f"damaged   {d['fault']}" for d in documents if "fault" in d]
    if not rows:
        return Summary(document=documents, lines=faults)
    return Summary(document=documents, title=shown, columns=columns, rows=rows, lines=faults)


def _listed(study: StudySummary) -> dict[str, Any]:
    """What the list of studies says of one; `fault` where it is damaged."""
    name, attributes = study.name, study.attributes
    if study.fitness is None:
        return {"study": name, "status": "damaged", "fault": study.fault}
    try:
        planned = _planned(attributes)
        best = _best_value(attributes, study.fitness, study.best_value)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        fault = f"study {name!r} is damaged: {type(error).__name__}: {error}"
        return {"study": name, "status": "damaged", "fault": fault}
    return {
        "study": name,
        "status": attributes.get("status"),
        "evaluated": study.n_complete,
        "failed": study.n_failed,
        "planned": planned,
        "fitness": f"val {study.fitness}",
        "best": best,
        "held_by": None if study.holder is None else str(study.holder),
    }


def study_summary(name: str, storage: str | None) -> Summary:
    """One study: how far it is, generation by generation."""
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        return _study_summary(record)


def _study_summary(record: StudyRecord) -> Summary:
    trials, attributes, holder = record.trials(), record.attributes, record.holder
    complete = {n: o for n, o in trials.items() if not o.failed}
    finalists = from_attributes(attributes)
    best = winner_of(trials, record.fitness, finalists)
    final = next((f for f in finalists if f.trial == best), None)
    generations: list[dict[str, Any]] = []
    for generation in sorted({o.candidate.generation for o in trials.values()}):
        here = [o for o in trials.values() if o.candidate.generation == generation]
        fine = [o for o in here if not o.failed]
        first = min(fine, key=record.fitness.rank, default=None)
        generations.append(
            {
                "generation": generation,
                "evaluated": len(fine),
                "failed": len(here) - len(fine),
                "best_loss": None if first is None else first.loss,
                "best_top1": None if first is None else first.top1,
                "best_n_params": None if first is None else first.candidate.n_params,
            }
        )
    document = {
        "study": record.name,
        "status": attributes.get("status"),
        "evaluated": len(complete),
        "failed": len(trials) - len(complete),
        "planned": _planned(attributes),
        "mode": _search_section(attributes).get("mode", "generational"),
        "fitness": f"val {record.fitness}",
        "held_by": None if holder is None else str(holder),
        "best": None
        if best is None
        else {
            "trial": best,
            "loss": complete[best].loss,
            "top1": complete[best].top1,
            "n_params": complete[best].candidate.n_params,
            "digest": complete[best].candidate.subnet.digest,
        },
        "finalists": to_attribute(finalists),
        "generations": generations,
        "supernet": attributes.get("supernet"),
        "export": attributes.get("export"),
    }
    lines = [
        f"status    {document['status']}; {document['evaluated']} of {document['planned']} subnets "
        f"evaluated, {document['failed']} failed"
    ]
    if document["mode"] == "steady-state":
        lines.append("mode      steady-state; a generation is a population's worth of subnets")
    if holder is not None:
        since = datetime.datetime.fromtimestamp(holder.since).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"driven by {holder} since {since}")
    elif document["status"] != "complete":
        lines.append(f"go on     glora-search resume {record.name}")
    if best is not None:
        lines.append(
            f"best      trial {best}: val loss {complete[best].loss:.4f}, val top-1 "
            f"{complete[best].top1:.3f}, {complete[best].candidate.n_params:,} parameters"
        )
    if final is not None:
        lines.append(
            f"in fp32   val loss {_figure(final.loss, 4)}, val top-1 {_figure(final.top1, 3)}, the "
            f"best of {len(finalists)} finalists; the figures above are the search's, in bf16"
        )
    if attributes.get("export"):
        lines.append(f"exported  {attributes['export']['directory']}")
        if kept := attributes["export"].get("artifact"):
            lines.append(f"kept      {kept}")
    return Summary(
        document=document,
        title=record.name,
        columns=("generation", "evaluated", "failed", "best val loss", "its top-1", "parameters")
        if generations
        else (),
        rows=[
            (
                str(g["generation"]),
                str(g["evaluated"]),
                str(g["failed"]),
                _figure(g["best_loss"], 4),
                _figure(g["best_top1"], 3),
                "-" if g["best_n_params"] is None else f"{g['best_n_params']:,}",
            )
            for g in generations
        ],
        lines=lines,
    )


def _best_value(attributes: dict[str, Any], fitness: Fitness, best: float | None) -> float | None:
    """The winner's value: in float32, where finalists were scored again."""
    finalists = from_attributes(attributes)
    if not finalists or finalists[0].loss is None:
        return best
    return finalists[0].loss if fitness is Fitness.LOSS else finalists[0].top1


def _planned(attributes: dict[str, Any]) -> int | None:
    search = _search_section(attributes)
    return int(search["population"] * (search["generations"] + 1)) if search else None


def _search_section(attributes: dict[str, Any]) -> dict[str, Any]:
    """The section [search] of the stored study; empty where none is stored."""
    section: dict[str, Any] = attributes.get("study", {}).get("search") or {}
    return section


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _is_number(text: str) -> bool:
    for part in (",", ".", " of ", "e-", " %"):
        text = text.replace(part, "")
    return text.isdigit() or text == "-"
