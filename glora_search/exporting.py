"""The end of a search: a subnet is merged, verified, measured on the test split, and written."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glora_search.prepare import Materials, check_fingerprints, prepare
from glora_search.progress import Progress, Silent
from glora_search.provenance import versions
from glora_search.recording import Database, StudyRecord
from glora_search.records import Outcome
from glora_search.storage_url import resolve_storage
from glora_search.study_file import stored_study
from glora_search.study_sections import StudyFile
from glora_search.supernet_stage import supernet_fingerprint, train_or_load_supernet
from supernet import Supernet, evaluate_model
from supernet.errors import DataError, ExportError
from supernet.export import check_export_directory, largest_logit_difference, write_export

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A network's numbers on one split."""

    top1: float
    loss: float
    n_images: int


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export says of itself.

    Args:
        directory: Where it is.
        trial: Optuna's number of the exported subnet.
        outcome: Its record.
        val: Its numbers on the validation split.
        test: Its numbers on the test split; None where the data set has none.
        logit_difference: The largest absolute one between subnet and merged model on validation
            images.
        n_params: Scalars of `adapter`, `head` and `merged_model`.
    """

    directory: Path
    trial: int
    outcome: Outcome
    val: Figures
    test: Figures | None
    logit_difference: float
    n_params: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """What is stored with the study, and shown."""
        test = self.test
        return {
            "directory": str(self.directory),
            "trial": self.trial,
            "val": asdict(self.val),
            "test": None if test is None else asdict(test),
            "logit_difference": self.logit_difference,
            "n_params": self.n_params,
        }


def export(
    name: str,
    out: Path,
    *,
    trial: int | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write one subnet of a study as a plain network; the best one by default.

    Args:
        name: The study.
        out: A directory that is new or empty.
        trial: Optuna's number of the subnet.
        storage: As in `launch`.
        progress: As in `launch`.

    Raises:
        GLoRASearchError: No such study or trial, changed inputs, or a directory that is not empty.
    """
    progress = progress or Silent()
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        check_export_directory(out)
        number = chosen_trial(record, trial)
        recorded = record.attributes["fingerprints"]
        if "supernet" not in recorded:
            raise ExportError(f"study {name!r} has no trained supernet yet; resume it first")
        materials = prepare(study_of(record), progress)
        check_fingerprints(recorded, materials.fingerprints, name)
        supernet = train_or_load_supernet(materials, progress)
        check_fingerprints(recorded, {"supernet": supernet_fingerprint(supernet)}, name)
        return export_trial(record, number, out, materials, supernet, progress)


def study_of(record: StudyRecord) -> StudyFile:
    """The resolved study file that is stored with a study."""
    return stored_study(record.attributes["study"])


def chosen_trial(record: StudyRecord, trial: int | None) -> int:
    """Optuna's number of the trial to export: `trial` if it can be, the best one for None.

    Raises:
        ExportError: There is no such trial, or it failed.
    """
    trials = record.trials()
    if trial is not None:
        outcome = trials.get(trial)
        if outcome is None:
            raise ExportError(
                f"study {record.name!r} has no trial {trial}; it has {len(trials)}, numbered from 0"
            )
        if outcome.failed:
            raise ExportError(f"trial {trial} failed ({outcome.error_type}): nothing to export")
        return trial
    complete = {number: o for number, o in trials.items() if not o.failed}
    if not complete:
        raise ExportError(f"study {record.name!r} has no evaluated subnet yet; resume it first")
    return min(complete, key=lambda number: record.fitness.rank(complete[number]))


def export_trial(
    record: StudyRecord,
    number: int,
    out: Path,
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
) -> Export:
    """Merge one trial's subnet, compare it with the unmerged one, measure it on test, and write it.

    Args:
        record: The study.
        number: Optuna's number of a trial that did not fail.
        out: A directory that is new or empty.
        materials: Of the study.
        supernet: Trained.
        progress: Where to report to.

    Raises:
        ExportError: Merged and unmerged logits differ by more than export.tolerance, or `out`
            cannot be written.
    """
    file = materials.file
    outcome = record.trials()[number]
    subnet = outcome.candidate.subnet
    merged = supernet.merge(subnet)
    difference = largest_logit_difference(supernet, merged, subnet, materials.val)
    if not difference <= file.export.tolerance:
        raise ExportError(
            f"the merged model differs from its subnet by {difference:.2g} in a logit of the "
            f"validation images; export.tolerance is {file.export.tolerance:g}. Nothing was written"
        )
    assert outcome.top1 is not None, "a failed trial is not chosen"
    assert outcome.loss is not None, "a failed trial is not chosen"
    val = Figures(top1=outcome.top1, loss=outcome.loss, n_images=len(materials.val))
    test = _test_evaluation(materials, merged, progress)
    attributes = record.attributes
    n_params = {
        "adapter": outcome.candidate.n_params,
        "head": sum(t.numel() for t in supernet.head_state().values()),
        "merged_model": sum(p.numel() for p in merged.parameters()),
    }
    write_export(
        out,
        supernet=supernet,
        merged=merged,
        subnet=subnet,
        architecture=materials.architecture,
        preprocessing=materials.preprocessing,
        class_names=materials.val.class_names,
        record={
            "study": record.name,
            "trial": number,
            "generation": outcome.candidate.generation,
            "index": outcome.candidate.index,
            "digest": subnet.digest,
            "val": asdict(val),
            "test": None if test is None else asdict(test),
            "n_params": n_params,
            "largest_logit_difference_val": difference,
            "seed": attributes["seed"],
            "fingerprints": attributes["fingerprints"],
            "versions": versions(),
        },
    )
    return Export(
        directory=out,
        trial=number,
        outcome=outcome,
        val=val,
        test=test,
        logit_difference=difference,
        n_params=n_params,
    )


def _test_evaluation(
    materials: Materials, merged: torch.nn.Module, progress: Progress
) -> Figures | None:
    try:
        test = materials.test_split(progress)
    except DataError as error:
        _log.warning("the export has no test figures: %s", error)
        return None
    device = next(merged.parameters()).device
    batch_size = materials.file.search.batch_size
    evaluation = evaluate_model(merged, test.to(device), batch_size=batch_size)
    return Figures(top1=evaluation.top1, loss=evaluation.loss, n_images=evaluation.n_images)


def existing_export(directory: Path, record: StudyRecord, number: int) -> Export | None:
    """The export of this trial that stands in `directory` already: its writing is all or
    nothing.
    """
    text = directory / "subnet.json"
    if not text.is_file():
        return None
    try:
        found = json.loads(text.read_text())
        outcome = record.trials()[number]
        mine = (record.name, outcome.candidate.subnet.digest, record.attributes["fingerprints"])
        if (found["study"], found["digest"], found["fingerprints"]) != mine:
            return None
        return Export(
            directory=directory,
            trial=number,
            outcome=outcome,
            val=Figures(**found["val"]),
            test=None if found["test"] is None else Figures(**found["test"]),
            logit_difference=found["largest_logit_difference_val"],
            n_params=found["n_params"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not an export of ours: writing there is refused
