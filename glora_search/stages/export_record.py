"""What an export says of itself, in memory and in its subnet.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from glora_search.recording import StudyRecord
from glora_search.stages.choosing import Chosen, Finetuning
from glora_search.study.attributes import MISSING_IN_TEST, made_of
from glora_search.study.outcomes import Outcome
from supernet import Precision
from supernet.formats import Written


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A network's numbers on one split, and the precision in which they were measured."""

    top1: float
    loss: float
    n_images: int
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class FinetuningRecord(Finetuning):
    """How an exported subnet was trained on: what was asked for, and what came of it.

    Args:
        kept_epoch: After which one the val loss was lowest, 0 for the inherited weights; of a mean
            over epochs, the last one.
        val_before: The figures with the inherited weights; `val` of the export are those after.
    """

    kept_epoch: int
    val_before: Figures


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """How what was exported was calibrated.

    Args:
        temperature: By which the head was divided; 1 where none was found.
        val_before: The figures without it; `val` of the export are those with it.
    """

    temperature: float
    val_before: Figures


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export says of itself.

    Args:
        directory: Where it is.
        trial: Optuna's number of the exported subnet; None for an average.
        average_of: The numbers of an average's subnets, best first; none for a single one. Of a
            soup, those that were kept.
        soup_of: The numbers of a soup's candidates, best first; none for anything else.
        finetuning: How the subnet was trained on; None where it was not.
        calibration: How it was calibrated; None where it was not.
        outcome: The record of the subnet; of an average, that of the best of its subnets.
        val: Its numbers on the validation split, in float32 where they were measured so. Those of
            an average, and of what was trained on or calibrated, are its own.
        val_in_search: The numbers that the search measured, if `val` was measured anew; else None.
        test: Its numbers on the test split; None where the data set has none.
        logit_difference: The largest absolute one between subnet and merged model on validation
            images; of an average, between its adapter and its network.
        n_params: Scalars of `adapter`, `head` and `merged_model`.
        missing_in_test: Classes of the training split that the test split has no image of.
        formats: What is known of the formats that it has besides timm's, by their names.
        artifact: Where it is kept besides; None where it is not.
    """

    directory: Path
    trial: int | None
    average_of: tuple[int, ...] = ()
    soup_of: tuple[int, ...] = ()
    finetuning: FinetuningRecord | None = None
    calibration: CalibrationRecord | None = None
    outcome: Outcome
    val: Figures
    val_in_search: Figures | None = None
    test: Figures | None
    logit_difference: float
    n_params: dict[str, int]
    missing_in_test: tuple[str, ...] = ()
    formats: Mapping[str, Written] = field(default_factory=dict)
    artifact: str | None = None

    @property
    def changed(self) -> bool:
        """Whether its weights are others than those that the search evaluated."""
        return self.finetuning is not None or self.calibration is not None

    @property
    def what(self) -> str:
        """What it is, in words."""
        return made_of(self.summary()) or f"trial {self.trial}"

    def summary(self) -> dict[str, Any]:
        """What is stored with the study, and shown."""
        return {
            "directory": str(self.directory),
            "trial": self.trial,
            "average_of": list(self.average_of),
            "soup_of": list(self.soup_of),
            "finetuning": optional_table(self.finetuning),
            "calibration": optional_table(self.calibration),
            "val": asdict(self.val),
            "val_in_search": optional_table(self.val_in_search),
            "test": optional_table(self.test),
            "logit_difference": self.logit_difference,
            "n_params": self.n_params,
            MISSING_IN_TEST: list(self.missing_in_test),
            "formats": {name: asdict(one) for name, one in self.formats.items()},
            "artifact": self.artifact,
        }


def optional_table(
    record: Figures | FinetuningRecord | CalibrationRecord | None,
) -> dict[str, Any] | None:
    """A record as JSON, where there is one."""
    return None if record is None else asdict(record)


def existing_export(
    directory: Path, record: StudyRecord, chosen: Chosen, formats: Iterable[str] = ()
) -> Export | None:
    """The export of just this choice that stands in `directory` already, in these formats at
    least: its writing is all or nothing.
    """
    text = directory / "subnet.json"
    if not text.is_file():
        return None
    try:
        found = json.loads(text.read_text())
        mine = (record.name, chosen.to_json(), record.attributes["fingerprints"])
        if (found["study"], _asked_for(found), found["fingerprints"]) != mine:
            return None
        written = {name: Written(**one) for name, one in found.get("formats", {}).items()}
        there = {name: one for name, one in written.items() if (directory / one.file).is_file()}
        if not there.keys() >= set(formats):
            return None
        return Export(
            directory=directory,
            trial=chosen.trial,
            average_of=_numbers(found.get("average_of")),
            soup_of=_numbers(found.get("soup_of")),
            finetuning=_finetuning(found.get("finetuning")),
            calibration=_calibration(found.get("calibration")),
            outcome=chosen.best,
            val=Figures(**found["val"]),
            val_in_search=_figures(found.get("val_in_search")),
            test=_figures(found["test"]),
            logit_difference=found["largest_logit_difference_val"],
            n_params=found["n_params"],
            missing_in_test=tuple(found.get(MISSING_IN_TEST, ())),
            formats=there,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not an export of ours: writing there is refused


def _asked_for(found: dict[str, Any]) -> dict[str, Any]:
    """What `Chosen.to_json` gave when a subnet.json was written."""
    candidates, tuned = found.get("soup_of"), found.get("finetuning")
    return {
        "digests": [one["digest"] for one in candidates or found.get("average_of", [found])],
        "is_soup": bool(candidates),
        "finetuning": tuned and asdict(_finetuning_of(tuned)),
        "calibrate": found.get("calibration") is not None,
    }


def _finetuning_of(record: Mapping[str, Any]) -> Finetuning:
    """What was asked for, from its record; one that lacks later keys is older than they are."""
    names = {each.name for each in fields(Finetuning)}
    return Finetuning(**{name: record[name] for name in names & record.keys()})


def _numbers(subnets: list[dict[str, Any]] | None) -> tuple[int, ...]:
    return tuple(subnet["trial"] for subnet in subnets or ())


def _figures(table: dict[str, Any] | None) -> Figures | None:
    return None if table is None else Figures(**table)


def _finetuning(table: dict[str, Any] | None) -> FinetuningRecord | None:
    if table is None:
        return None
    return FinetuningRecord(**{**table, "val_before": Figures(**table["val_before"])})


def _calibration(table: dict[str, Any] | None) -> CalibrationRecord | None:
    if table is None:
        return None
    return CalibrationRecord(**{**table, "val_before": Figures(**table["val_before"])})
