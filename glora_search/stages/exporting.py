"""Export a trial, or the average of several: merge, verify, measure on the test split, write."""

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
from glora_search.study.finalists import Finalist, best_trials, from_attributes, winner_of
from glora_search.study.outcomes import Outcome
from glora_search.study.reading import stored_study
from glora_search.study.study_file import StudyFile
from supernet import Precision, Supernet, evaluate_model
from supernet.average_export import average_export
from supernet.data import Split, missing_classes
from supernet.errors import DataError, ExportError
from supernet.export import Exportable, subnet_export, write_export

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
    """A trial that is to be exported, or several whose average is.

    Args:
        trials: Optuna's numbers, best first, and their records.
        final: The figures in float32 of a single trial, where the search measured in bf16 and it
            was a finalist.
    """

    trials: Mapping[int, Outcome]
    final: Finalist | None = None

    @property
    def best(self) -> Outcome:
        """The record of the first."""
        return next(iter(self.trials.values()))

    @property
    def trial(self) -> int | None:
        """The number of a single trial; None for an average."""
        return None if self.average_of else next(iter(self.trials))

    @property
    def average_of(self) -> tuple[int, ...]:
        """The numbers of an average's trials; none for a single one."""
        return tuple(self.trials) if len(self.trials) > 1 else ()

    @property
    def digests(self) -> list[str]:
        """Those of the subnets."""
        return [outcome.candidate.subnet.digest for outcome in self.trials.values()]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export says of itself.

    Args:
        directory: Where it is.
        trial: Optuna's number of the exported subnet; None for an average.
        average_of: The numbers of an average's subnets, best first; none for a single one.
        outcome: The record of the subnet; of an average, that of the best of its subnets.
        val: Its numbers on the validation split, in float32 where they were measured so. Those of
            an average are its own.
        val_in_search: Those by which the search went, where they are others; else None.
        test: Its numbers on the test split; None where the data set has none.
        logit_difference: The largest absolute one between subnet and merged model on validation
            images; of an average, between its adapter and its network.
        n_params: Scalars of `adapter`, `head` and `merged_model`.
        missing_in_test: Classes of the training split that the test split has no image of.
        artifact: Where it is kept besides; None where it is not.
    """

    directory: Path
    trial: int | None
    average_of: tuple[int, ...] = ()
    outcome: Outcome
    val: Figures
    val_in_search: Figures | None = None
    test: Figures | None
    logit_difference: float
    n_params: dict[str, int]
    missing_in_test: tuple[str, ...] = ()
    artifact: str | None = None

    @property
    def what(self) -> str:
        """What it is, in words."""
        if self.average_of:
            return f"average of {len(self.average_of)} subnets"
        return f"trial {self.trial}"

    def summary(self) -> dict[str, Any]:
        """What is stored with the study, and shown."""
        return {
            "directory": str(self.directory),
            "trial": self.trial,
            "average_of": list(self.average_of),
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


def chosen_average(record: StudyRecord, trials: Mapping[int, Outcome], n: int) -> Chosen:
    """The `n` best trials, whose average is to be exported; for 1 the winner.

    Args:
        record: The study.
        trials: All of its trials, by Optuna's number.
        n: How many.

    Raises:
        ExportError: There are not so many.
    """
    if n == 1:
        return chosen_trial(record, trials)
    best = best_trials(trials, record.objectives, from_attributes(record.attributes))
    if not 2 <= n <= len(best):
        raise ExportError(
            f"cannot average {n} subnets: study {record.name!r} has {len(best)} evaluated ones; "
            "accepted: from 2 to that number"
        )
    return Chosen(trials={number: trials[number] for number in best[:n]})


def chosen_trial(
    record: StudyRecord, trials: Mapping[int, Outcome], trial: int | None = None
) -> Chosen:
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
    return Chosen(trials={trial: outcome}, final=final)


def export_chosen(
    record: StudyRecord,
    chosen: Chosen,
    out: Path,
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
) -> Export:
    """Merge what was chosen, compare it with the unmerged one, measure it on test, and write it.

    Args:
        record: The study.
        chosen: What `chosen_trial` or `chosen_average` gave.
        out: A directory that is new or empty.
        materials: Of the study.
        supernet: Trained.
        progress: Where to report to.

    Raises:
        ExportError: Merged and unmerged logits differ by more than export.tolerance, or `out`
            cannot be written.
    """
    file = materials.file
    exportable = _exportable(supernet, chosen)
    difference = exportable.logit_difference(materials.val)
    if not difference <= file.export.tolerance:
        raise ExportError(
            f"the merged model differs from the unmerged one by {difference:.2g} in a logit of the "
            f"validation images; export.tolerance is {file.export.tolerance:g}. Nothing was written"
        )
    attributes = record.attributes
    val, val_in_search = _val_figures(record, chosen, materials, exportable.network)
    test, missing_in_test = _test_evaluation(materials, exportable.network, progress)
    n_head = sum(t.numel() for t in supernet.head_state().values())
    n_params = {
        "adapter": sum(t.numel() for t in exportable.adapter.values()) - n_head,
        "head": n_head,
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
            **_identity(chosen, exportable),
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
        average_of=chosen.average_of,
        outcome=chosen.best,
        val=val,
        val_in_search=val_in_search,
        test=test,
        logit_difference=difference,
        n_params=n_params,
        missing_in_test=missing_in_test,
    )


def _exportable(supernet: Supernet, chosen: Chosen) -> Exportable:
    subnets = [outcome.candidate.subnet for outcome in chosen.trials.values()]
    if chosen.average_of:
        return average_export(supernet, subnets)
    return subnet_export(supernet, subnets[0])


def _identity(chosen: Chosen, exportable: Exportable) -> dict[str, Any]:
    """Which trial subnet.json is about, or which ones."""
    if chosen.average_of:
        averaged = zip(chosen.average_of, exportable.origin["average_of"], strict=True)
        return {"average_of": [{"trial": trial, **subnet} for trial, subnet in averaged]}
    candidate = chosen.best.candidate
    return {
        "trial": chosen.trial,
        "generation": candidate.generation,
        "index": candidate.index,
        "digest": candidate.subnet.digest,
    }


def _val_figures(
    record: StudyRecord, chosen: Chosen, materials: Materials, merged: torch.nn.Module
) -> tuple[Figures, Figures | None]:
    """The figures to show, and those of the search where they are others.

    No search measured an average, so its network runs over the validation split here.
    """
    if chosen.average_of:
        return _measured(materials, merged, materials.val), None
    n_images = len(materials.val)
    precision = record.attributes.get("precision", materials.file.search.precision)
    outcome, final = chosen.best, chosen.final
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
    return _measured(materials, merged, test), missing


def _measured(materials: Materials, merged: torch.nn.Module, split: Split) -> Figures:
    """A merged network's figures on a split, in float32."""
    device = next(merged.parameters()).device
    batch_size = materials.file.search.batch_size
    evaluation = evaluate_model(merged, split.to(device), batch_size=batch_size)
    return Figures(top1=evaluation.top1, loss=evaluation.loss, n_images=evaluation.n_images)


def existing_export(directory: Path, record: StudyRecord, chosen: Chosen) -> Export | None:
    """The export of this trial, or of this average, that stands in `directory` already: its writing
    is all or nothing.
    """
    text = directory / "subnet.json"
    if not text.is_file():
        return None
    try:
        found = json.loads(text.read_text())
        mine = (record.name, chosen.digests, record.attributes["fingerprints"])
        digests = [subnet["digest"] for subnet in found.get("average_of", [found])]
        if (found["study"], digests, found["fingerprints"]) != mine:
            return None
        return Export(
            directory=directory,
            trial=chosen.trial,
            average_of=chosen.average_of,
            outcome=chosen.best,
            val=Figures(**found["val"]),
            val_in_search=_figures(found.get("val_in_search")),
            test=_figures(found["test"]),
            logit_difference=found["largest_logit_difference_val"],
            n_params=found["n_params"],
            missing_in_test=tuple(found.get(MISSING_IN_TEST, ())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not an export of ours: writing there is refused


def _figures(table: dict[str, Any] | None) -> Figures | None:
    return None if table is None else Figures(**table)
