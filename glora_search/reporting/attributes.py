"""The edge to the study's attributes: JSON that may lack anything becomes records.

A study is reported in whatever state it is: still training, interrupted, written by an earlier
version. What is absent or of another type is None, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glora_search.study.attributes import MISSING_IN_TEST, MISSING_IN_VAL
from glora_search.study.finalists import ATTRIBUTE, Finalist
from search_spaces import NO_LIMITS, InfeasibleLimitError, ParamLimits


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """What a subnet scored on one split.

    Args:
        top1: A fraction.
        loss: Mean cross-entropy, nats.
        n_images: The split's size.
    """

    top1: float | None
    loss: float | None
    n_images: int | None


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What was exported, and what it scored.

    Args:
        directory: Where it lies.
        trial: Optuna's number of the subnet; None for an average.
        n_averaged: Of how many subnets it is the average; 0 where it is a single one.
        n_candidates: Of how many candidates these were kept as a soup; 0 where it is none.
        finetuned: For how long a single one was trained on, in words; empty where it was not.
        calibrated: Whether a temperature was put into its head.
        val: On the split that the search optimised on.
        test: On the split that nothing was chosen on; None where there is none.
        logit_difference: The largest between subnet and merged model, on the val images.
        n_params: Counts by what they count: adapter, head, merged_model.
    """

    directory: str | None
    trial: int | None
    n_averaged: int = 0
    n_candidates: int = 0
    finetuned: str = ""
    calibrated: bool = False
    val: SplitScore | None
    test: SplitScore | None
    logit_difference: float | None
    n_params: Mapping[str, int]

    @property
    def what(self) -> str:
        """What was exported, in words."""
        return f"{self._what}, calibrated" if self.calibrated else self._what

    @property
    def _what(self) -> str:
        if self.n_candidates:
            return f"the soup of {self.n_averaged} of the {self.n_candidates} best subnets"
        if self.n_averaged:
            return f"the average of the {self.n_averaged} best subnets"
        if self.trial is None:
            return "a subnet"
        if self.finetuned:
            return f"trial {self.trial}, fine-tuned for {self.finetuned}"
        return f"trial {self.trial}"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One row of the table in which the search stands beside methods that need none.

    Args:
        what: Which method.
        n_params: Trainable scalars, without the head.
        seeds: Over which its figures are means; None for a single one.
        val_loss: Nats.
        val_top1: A fraction.
        test_top1: A fraction.
        test_interval: Its 95% interval over seeds.
        difference: The difference of its test top-1 to the reference's, with its 95% interval.
    """

    what: str
    n_params: int | None
    seeds: int | None
    val_loss: float | None
    val_top1: float | None
    test_top1: float | None
    test_interval: Interval | None
    difference: Interval | None


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What the database holds of a study besides its trials."""

    study: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    status: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    export: ExportFacts | None = None
    comparison: tuple[ComparisonRow, ...] = ()
    finalists: tuple[Finalist, ...] = ()
    missing_in_val: tuple[str, ...] = ()
    missing_in_test: tuple[str, ...] = ()

    @property
    def limits(self) -> ParamLimits:
        """The limits on a subnet's parameters that the study file sets."""
        search = _mapping(self.study.get("search"))
        try:
            return ParamLimits(
                _integer(search.get("min_params")) or 0, _integer(search.get("max_params"))
            )
        except InfeasibleLimitError:
            return NO_LIMITS

    @property
    def is_steady_state(self) -> bool:
        """Whether the search made its subnets one by one, as workers came free."""
        return _mapping(self.study.get("search")).get("mode") == "steady-state"

    @property
    def n_val(self) -> int | None:
        """Images of the val split: as counted for the export, else as the study file asks for."""
        if self.export and self.export.val and self.export.val.n_images:
            return self.export.val.n_images
        return _integer(_mapping(self.study.get("data")).get("n_val")) or None

    @property
    def n_test(self) -> int | None:
        """Images of the test split."""
        return self.export.test.n_images if self.export and self.export.test else None


def read_facts(attributes: Mapping[str, Any]) -> StudyFacts:
    """The facts that `attributes`, a study's own, hold."""
    comparison = attributes.get("comparison")
    status = attributes.get("status")
    return StudyFacts(
        study=_mapping(attributes.get("study")),
        seed=_integer(attributes.get("seed")),
        status=status if isinstance(status, str) else None,
        versions=_texts(attributes.get("versions")),
        fingerprints=_texts(attributes.get("fingerprints")),
        machine=_texts(attributes.get("machine")),
        export=_export(attributes.get("export")),
        comparison=tuple(
            ComparisonRow(
                what=str(row.get("what", "")),
                n_params=_integer(row.get("n_params")),
                seeds=_integer(row.get("seeds")),
                val_loss=_number(row.get("val_loss")),
                val_top1=_number(row.get("val_top1")),
                test_top1=_number(row.get("test_top1")),
                test_interval=_interval(row.get("test_interval")),
                difference=_interval(row.get("difference")),
            )
            for row in (comparison if isinstance(comparison, list) else ())
            if isinstance(row, Mapping)
        ),
        finalists=tuple(_finalists(attributes.get(ATTRIBUTE))),
        missing_in_val=_names(attributes.get(MISSING_IN_VAL)),
        missing_in_test=_names(_mapping(attributes.get("export")).get(MISSING_IN_TEST)),
    )


def _finetuned(tuned: Mapping[str, Any]) -> str:
    """For how long, and what was kept; empty where nothing was trained on."""
    n, runs = _integer(tuned.get("epochs")) or 0, _integer(tuned.get("runs")) or 1
    if not n:
        return ""
    epochs = "1 epoch" if n == 1 else f"{n} epochs"
    if tuned.get("keep") != "average":
        return epochs
    return f"{epochs}, averaged" if runs == 1 else f"{runs} times {epochs}, averaged"


def _export(value: Any) -> ExportFacts | None:
    if not isinstance(value, Mapping) or not value:
        return None
    directory, tuned = value.get("directory"), _mapping(value.get("finetuning"))
    counts = {key: _integer(n) for key, n in _mapping(value.get("n_params")).items()}
    return ExportFacts(
        directory=directory if isinstance(directory, str) else None,
        trial=_integer(value.get("trial")),
        n_averaged=_length(value.get("average_of")),
        n_candidates=_length(value.get("soup_of")),
        finetuned=_finetuned(tuned),
        calibrated=bool(value.get("calibration")),
        val=_score(value.get("val")),
        test=_score(value.get("test")),
        logit_difference=_number(value.get("logit_difference")),
        n_params={key: n for key, n in counts.items() if n is not None},
    )


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _finalists(value: Any) -> Iterator[Finalist]:
    for row in value if isinstance(value, list) else ():
        trial = _integer(_mapping(row).get("trial"))
        if trial is not None:
            yield Finalist(
                trial=trial,
                loss=_number(row.get("loss")),
                top1=_number(row.get("top1")),
                calibrated_loss=_number(row.get("calibrated_loss")),
                held_out=_integer(row.get("held_out")),
            )


def _score(value: Any) -> SplitScore | None:
    if not isinstance(value, Mapping):
        return None
    return SplitScore(
        top1=_number(value.get("top1")),
        loss=_number(value.get("loss")),
        n_images=_integer(value.get("n_images")),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> Mapping[str, str]:
    return {key: "none" if v is None else str(v) for key, v in _mapping(value).items()}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _interval(value: Any) -> Interval | None:
    ends = [_number(_mapping(value).get(name)) for name in ("mean", "low", "high")]
    mean, low, high = ends
    if mean is None or low is None or high is None:
        return None
    return Interval(mean=mean, low=low, high=high)
