"""Studies as tables: the end of a launch, an export and a demo, and what `status` shows."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from glora_search.cli.output import Output, Table, number
from glora_search.study.attributes import made_of
from glora_search.study.objectives import OBJECTIVES

if TYPE_CHECKING:
    from glora_search.operations.demo import DemoResult
    from glora_search.operations.front_status import FrontStatus
    from glora_search.operations.launching import SearchResult
    from glora_search.operations.status import DatabaseStatus, StudyStatus
    from glora_search.stages.export_record import Export


# Training time and memory are left out: the supernet of the first seed is that of the launch.
_DEMO_COLUMNS: Final = (
    *("method", "runs", "params", "val top-1", "test top-1", "test loss", "difference [95%]"),
)


def search_output(result: SearchResult) -> Output:
    """The end of a launch or a resume."""
    exported = result.export.summary()
    failed = sum(outcome.failed for outcome in result.outcomes)
    evaluated = len(result.outcomes) - failed
    val, test = result.export.val, result.export.test
    is_winner = result.export.trial is not None and not result.export.changed
    kind = "winner" if is_winner else "export"
    return Output(
        document={
            "study": result.name,
            "evaluated": evaluated,
            "failed": failed,
            "export": exported,
        },
        title=f"{result.name}: {evaluated} subnets evaluated, {failed} failed",
        columns=(kind, "parameters", "val loss", "val top-1", "test top-1"),
        rows=[
            (
                result.export.what,
                f"{exported['n_params']['adapter']:,}",
                number(val.loss, 4),
                number(val.top1, 3),
                number(None if test is None else test.top1, 3),
            )
        ],
        lines=_export_lines(result.export),
    )


def export_output(exported: Export) -> Output:
    """The end of an export."""
    return Output(document=exported.summary(), lines=_export_lines(exported))


def demo_output(demo: DemoResult) -> Output:
    """The end of the demo."""
    from glora_search.cli.bench_tables import comparison_output

    result, materials = demo.result, demo.result.materials
    best = OBJECTIVES[materials.file.search.fitness].best
    compared = comparison_output(demo.comparison)
    n_test = demo.comparison.results[0].n_test
    shown = [compared.columns.index(name) for name in _DEMO_COLUMNS]
    return replace(
        compared,
        document=demo.to_json(),
        columns=_DEMO_COLUMNS,
        rows=[[row[at] for at in shown] for row in compared.rows],
        title="Digits 0-4 to digits 5-9: "
        f"{len(materials.train)} images to train, {len(materials.val)} for val, {n_test} for test; "
        "top-1 in %, ± deviation over seeds",
        lines=[
            compared.lines[0],
            "Where the interval holds 0, the table does not tell the two methods apart.",
            "",
            f"The export is the winner of the first seed: the {best} of "
            f"{len(result.outcomes)} subnets.",
            *_export_lines(result.export),
            f"report    {demo.report}",
            f"database  {demo.storage}",
            f"took      {demo.seconds:.0f} s",
        ],
    )


def database_output(status: DatabaseStatus) -> Output:
    """All studies of a database, and all sweeps."""
    document = status.to_json()
    if not document:
        return Output(document=[], lines=[f"{status.shown} holds no studies"])
    rows = [
        (
            study.study,
            study.status or "-",
            f"{study.evaluated} of {study.planned or '-'}",
            str(study.failed),
            study.fitness,
            study.best_text,
            study.held_by or "-",
        )
        for study in status.studies
        if study.fault is None
    ]
    faults = [f"damaged   {study.fault}" for study in status.studies if study.fault is not None]
    if not rows:
        return Output(document=document, lines=faults)
    columns = ("study", "status", "evaluated", "failed", "fitness", "best", "driven by")
    return Output(document=document, title=status.shown, columns=columns, rows=rows, lines=faults)


def study_output(study: StudyStatus) -> Output:
    """One study, generation by generation."""
    columns = ["generation", "evaluated", "failed", "best val loss", "its top-1", "parameters"]
    volumes = None if study.front is None else study.front.by_generation
    if volumes is not None:
        columns.append("hypervolume")
    return Output(
        document=study.to_json(),
        title=study.study,
        columns=tuple(columns) if study.generations else (),
        rows=[
            (
                str(g.generation),
                str(g.evaluated),
                str(g.failed),
                number(g.best_loss, 4),
                number(g.best_top1, 3),
                "-" if g.best_n_params is None else f"{g.best_n_params:,}",
                *(() if volumes is None else (number(volumes.get(g.generation), 4),)),
            )
            for g in study.generations
        ],
        lines=_study_lines(study),
        more=[] if study.front is None else [_front_table(study.front)],
    )


def _front_table(front: FrontStatus) -> Table:
    """The subnets on the front of a study of two objectives."""
    reference = ""
    if front.hypervolume is not None and front.reference is not None:
        shown = ", ".join(
            f"{OBJECTIVES[name].title} {OBJECTIVES[name].text(value)}"
            for name, value in zip(front.objectives, front.reference, strict=True)
        )
        reference = f"; hypervolume {front.hypervolume:.4f} up to {shown}"
    return Table(
        title=f"front of {len(front.members)} subnets{reference}",
        columns=("trial", "val loss", "val top-1", "parameters", "digest", ""),
        rows=[
            (
                str(trial),
                number(outcome.loss, 4),
                number(outcome.top1, 3),
                f"{outcome.candidate.n_params:,}",
                outcome.candidate.subnet.digest[:12],
                "knee" if trial == front.knee else "",
            )
            for trial, outcome in front.members
        ],
    )


def _study_lines(study: StudyStatus) -> list[str]:
    lines = [
        f"status    {study.status}; {study.evaluated} of {study.planned or '-'} subnets evaluated, "
        f"{study.failed} failed"
    ]
    if study.mode == "steady-state":
        lines.append("mode      steady-state; a generation is a population's worth of subnets")
    if study.held_by is not None and study.held_since is not None:
        since = datetime.datetime.fromtimestamp(study.held_since).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"driven by {study.held_by} since {since}")
    elif study.status != "complete":
        lines.append(f"go on     glora-search resume {study.study}")
    if study.best is not None:
        trial, outcome = study.best
        lines.append(
            f"best      trial {trial}: val loss {number(outcome.loss, 4)}, val top-1 "
            f"{number(outcome.top1, 3)}, {outcome.candidate.n_params:,} parameters"
        )
        final = next((f for f in study.finalists if f.trial == trial), None)
        if final is not None:
            held_out = final.held_out is not None
            others = f"on images other than these {final.held_out}" if held_out else "in bf16"
            lines.append(
                f"{'held out' if held_out else 'in fp32'}  ".ljust(10)
                + f"val loss {number(final.loss, 4)}, val top-1 {number(final.top1, 3)}, "
                f"the best of {len(study.finalists)} finalists; the figures above are the "
                f"search's, {others}"
            )
    if study.export:
        what = made_of(study.export)
        lines.append(f"exported  {study.export['directory']}" + (f"  ({what})" if what else ""))
        if kept := study.export.get("artifact"):
            lines.append(f"kept      {kept}")
    return lines


def _export_lines(exported: Export) -> list[str]:
    """Where an export is, and how to load it."""
    kept = [] if exported.artifact is None else [f"kept      {exported.artifact}"]
    gained = []
    if exported.finetuning is not None:
        scaled = exported.calibration
        before, after = exported.finetuning.val_before, exported.val
        after = after if scaled is None else scaled.val_before
        gained.append(
            f"tuned     val loss {before.loss:.4f} before, {after.loss:.4f} after; val top-1 "
            f"{before.top1:.3f} before, {after.top1:.3f} after"
        )
    if exported.calibration is not None:
        gained.append(
            f"scaled    val loss {exported.calibration.val_before.loss:.4f} before, "
            f"{exported.val.loss:.4f} after the head was divided by "
            f"{exported.calibration.temperature:.3f}"
        )
    return [
        f"exported  {exported.directory}  ({exported.what}; merged and unmerged logits "
        f"differ by at most {exported.logit_difference:.1e})",
        *gained,
        *(
            f"{name:<8}  {exported.directory / one.file}  (its logits differ by at most "
            f"{one.logit_difference:.1e} on {one.n_images} val images)"
            for name, one in exported.formats.items()
        ),
        *kept,
        f'load it   timm.create_model("local-dir:{exported.directory}", pretrained=True)',
    ]
