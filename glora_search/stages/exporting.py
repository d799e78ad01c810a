"""Export one trial: merge its subnet, verify it, measure it on the test split, and write it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glora_search.recording import StudyRecord
from glora_search.stages.prepare import Materials, missing_note
from glora_search.stages.progress import Progress
from glora_search.stages.provenance import versions
from glora_search.study.attributes import MISSING_IN_TEST
from glora_search.study.finalists import Finalist, from_attributes, winner_of
from glora_search.study.outcomes import Outcome
from glora_search.study.reading import stored_study
from glora_search.study.study_file import StudyFile
from supernet import Precision, Supernet, evaluate_model
from supernet.data import missing_classes
from supernet.errors import DataError, ExportError
from supernet.export import subnet_export, write_export

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A network's numbers on one split, and the precision in which they were measured."""

    top1: float
    loss: float
    n_images: int
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A trial that is to be exported.

    Args:
        trial: Optuna's number.
        outcome: Its record.
        final: Its figures in float32, where the search measured in bf16 and it was a finalist.
    """

    trial: int
    outcome: Outcome
    final: Finalist | None = None


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export says of itself.

    Args:
        directory: Where it is.
        trial: Optuna's number of the exported subnet.
        outcome: Its record.
        val: Its numbers on the validation split, in float32 where they were measured so.
        val_in_search: Those by which the search went, where they are others; else None.
        test: Its numbers on the test split; None where the data set has none.
        logit_difference: The largest absolute one between subnet and merged model on validation
            images.
        n_params: Scalars of `adapter`, `head` and `merged_model`.
        missing_in_test: Classes of the training split that the test split has no image of.
        artifact: Where it is kept besides; None where it is not.
    """

    directory: Path
    trial: int
    outcome: Outcome
    val: Figures
    val_in_search: Figures | None = None
    test: Figures | None
    logit_difference: float
    n_params: dict[str, int]
    missing_in_test: tuple[str, ...] = ()
    artifact: str | None = None

    def summary(self) -> dict[str, Any]:
        """What is stored with the study, and shown."""
        return {
            "directory": str(self.directory),
            "trial": self.trial,
            "val": asdict(self.val),
            "val_in_search": _optional(self.val_in_search),
            "test": _optional(self.test),
            "logit_difference": self.logit_difference,
            "n_params": self.n_params,
            MISSING_IN_TEST: list(self.missing_in_test),
            "artifact": self.artifact,
        }


def study_of(record: StudyRecord) -> StudyFile:
    """The resolved study file that is stored with a study."""
    return stored_study(record.attributes["study"])


def chosen_trial(record: StudyRecord, trials: Mapping[int, Outcome], trial: int | None) -> Chosen:
    """The trial to export: `trial` if it can be, the winner for None.

    Args:
        record: The study.
        trials: All of its trials, by Optuna's number.
        trial: A number.

    Raises:
        ExportError: There is no such trial, or it failed.
    """
    finalists = from_attributes(record.attributes)
    if trial is None:
        trial = winner_of(trials, record.objectives, finalists)
        if trial is None:
            raise ExportError(f"study {record.name!r} has no evaluated subnet yet; resume it first")
    outcome = trials.get(trial)
    if outcome is None:
        raise ExportError(
            f"study {record.name!r} has no trial {trial}; it has {len(trials)}, numbered from 0"
        )
    if outcome.failed:
        raise ExportError(f"trial {trial} failed ({outcome.error_type}): nothing to export")
    final = next((f for f in finalists if f.trial == trial), None)
    return Chosen(trial=trial, outcome=outcome, final=final)


def export_trial(
    record: StudyRecord,
    chosen: Chosen,
    out: Path,
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
) -> Export:
    """Merge one trial's subnet, compare it with the unmerged one, measure it on test, and write it.

    Args:
        record: The study.
        chosen: What `chosen_trial` gave.
        out: A directory that is new or empty.
        materials: Of the study.
        supernet: Trained.
        progress: Where to report to.

    Raises:
        ExportError: Merged and unmerged logits differ by more than export.tolerance, or `out`
            cannot be written.
    """
    file = materials.file
    outcome = chosen.outcome
    exportable = subnet_export(supernet, outcome.candidate.subnet)
    difference = exportable.logit_difference(materials.val)
    if not difference <= file.export.tolerance:
        raise ExportError(
            f"the merged model differs from its subnet by {difference:.2g} in a logit of the "
            f"validation images; export.tolerance is {file.export.tolerance:g}. Nothing was written"
        )
    attributes = record.attributes
    precision = attributes.get("precision", file.search.precision)
    val, val_in_search = _val_figures(chosen, len(materials.val), precision)
    test, missing_in_test = _test_evaluation(materials, exportable.network, progress)
    n_params = {
        "adapter": outcome.candidate.n_params,
        "head": sum(t.numel() for t in supernet.head_state().values()),
        "merged_model": sum(p.numel() for p in exportable.network.parameters()),
    }
    write_export(
        out,
        exportable,
        architecture=materials.architecture,
        preprocessing=materials.preprocessing,
        class_names=materials.val.class_names,
        record={
            "study": record.name,
            "trial": chosen.trial,
            "generation": outcome.candidate.generation,
            "index": outcome.candidate.index,
            "digest": outcome.candidate.subnet.digest,
            "val": asdict(val),
            "val_in_search": _optional(val_in_search),
            "test": _optional(test),
            "n_params": n_params,
            MISSING_IN_TEST: list(missing_in_test),
            "largest_logit_difference_val": difference,
            "seed": attributes["seed"],
            "fingerprints": attributes["fingerprints"],
            "versions": versions(),
        },
    )
    return Export(
        directory=out,
        trial=chosen.trial,
        outcome=outcome,
        val=val,
        val_in_search=val_in_search,
        test=test,
        logit_difference=difference,
        n_params=n_params,
        missing_in_test=missing_in_test,
    )


def _val_figures(
    chosen: Chosen, n_images: int, precision: Precision
) -> tuple[Figures, Figures | None]:
    """The figures to show, and those of the search where they are others."""
    outcome, final = chosen.outcome, chosen.final
    assert outcome.top1 is not None, "a failed trial is not chosen"
    assert outcome.loss is not None, "a failed trial is not chosen"
    searched = Figures(top1=outcome.top1, loss=outcome.loss, n_images=n_images, precision=precision)
    if final is None or final.loss is None or final.top1 is None:
        return searched, None
    return Figures(top1=final.top1, loss=final.loss, n_images=n_images), searched


def _optional(figures: Figures | None) -> dict[str, Any] | None:
    return None if figures is None else asdict(figures)


def _test_evaluation(
    materials: Materials, merged: torch.nn.Module, progress: Progress
) -> tuple[Figures | None, tuple[str, ...]]:
    """The figures on the test split, and the classes that it lacks; None where there is no test
    split.
    """
    try:
        test = materials.test_split(progress)
    except DataError as error:
        _log.warning("the export has no test figures: %s", error)
        return None, ()
    if missing := missing_classes(materials.train, test):
        progress.note(missing_note("test", missing))
    device = next(merged.parameters()).device
    batch_size = materials.file.search.batch_size
    evaluation = evaluate_model(merged, test.to(device), batch_size=batch_size)
    figures = Figures(top1=evaluation.top1, loss=evaluation.loss, n_images=evaluation.n_images)
    return figures, missing


def existing_export(directory: Path, record: StudyRecord, chosen: Chosen) -> Export | None:
    """The export of this trial that stands in `directory` already: its writing is all or
    nothing.
    """
    text = directory / "subnet.json"
    if not text.is_file():
        return None
    try:
        found = json.loads(text.read_text())
        digest = chosen.outcome.candidate.subnet.digest
        mine = (record.name, digest, record.attributes["fingerprints"])
        if (found["study"], found["digest"], found["fingerprints"]) != mine:
            return None
        return Export(
            directory=directory,
            trial=chosen.trial,
            outcome=chosen.outcome,
            val=Figures(**found["val"]),
            val_in_search=_figures(found.get("val_in_search")),
            test=_figures(found["test"]),
            logit_difference=found["largest_logit_difference_val"],
            n_params=found["n_params"],
            missing_in_test=tuple(found.get(MISSING_IN_TEST, ())),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not an export of ours: writing there is refused


def _figures(table: dict[str, Any] | None) -> Figures | None:
    return None if table is None else Figures(**table)
