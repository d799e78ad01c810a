"""The section [sweep] of a study file: what of the supernet's recipe is swept, and how far.

A swept key has either a list, of which each trial takes one, or a range, from which it draws.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Le
from pydantic import (
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    field_validator,
)

from glora_search.study.section_types import (
    Count,
    CountOrZero,
    GPUs,
    NotNegative,
    Positive,
    Section,
)

SWEPT: Final = ("lr", "weight_decay", "epochs")
"""The keys of [supernet] that a sweep varies, under the same names."""

CHOICES: Final = "choices"
RANGE: Final = "range"


class FloatRange(Section):
    """From `low` to `high`, both included; on a log scale unless `log = false`."""

    low: NotNegative
    high: Positive
    log: bool = True

    @field_validator("high")
    @classmethod
    def _ordered(cls, value: float, info: ValidationInfo) -> float:
        return _above(value, info)

    @field_validator("log")
    @classmethod
    def _has_logarithm(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("low") == 0:
            raise ValueError("a log scale has no 0: give low > 0, or log = false")
        return value


class IntRange(Section):
    """The same for whole numbers."""

    low: Count
    high: Count
    log: bool = True

    @field_validator("high")
    @classmethod
    def _ordered(cls, value: int, info: ValidationInfo) -> int:
        return int(_above(value, info))


def _above(value: float, info: ValidationInfo) -> float:
    low = info.data.get("low")
    if low is not None and value <= low:
        raise ValueError(f"above low = {low:g}; got {value:g}; a list of one keeps a key fixed")
    return value


def _form(value: Any) -> str | None:
    if isinstance(value, dict | Section):
        return RANGE
    return CHOICES if isinstance(value, list) else None


def _checked_concurrent(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not is_count and value != "auto":
        raise ValueError('accepted: a number from 1 on, or "auto"')
    return value


_FORM: Final = Discriminator(
    _form,
    custom_error_type="swept",
    custom_error_message="a list of which each trial takes one, or { low = ..., high = ... }",
)
Concurrent = Annotated[int | Literal["auto"], PlainValidator(_checked_concurrent)]

SweptRate = Annotated[
    Annotated[Annotated[list[Positive], Field(min_length=1)], Tag(CHOICES)]
    | Annotated[FloatRange, Tag(RANGE)],
    _FORM,
]
SweptDecay = Annotated[
    Annotated[Annotated[list[NotNegative], Field(min_length=1)], Tag(CHOICES)]
    | Annotated[FloatRange, Tag(RANGE)],
    _FORM,
]
SweptEpochs = Annotated[
    Annotated[Annotated[list[Count], Field(min_length=1)], Tag(CHOICES)]
    | Annotated[IntRange, Tag(RANGE)],
    _FORM,
]


class SweepSection(Section):
    """Recipes of the supernet that `sweep` compares, by the mean val loss of random subnets."""

    trials: Count = 20
    concurrent: Concurrent = 2
    lr: SweptRate = FloatRange(low=1e-4, high=1e-2)
    weight_decay: SweptDecay = FloatRange(low=1e-5, high=1e-1)
    epochs: SweptEpochs | None = None
    subnets: Count = 16
    grace: Annotated[float, Ge(0.01), Le(1)] = 0.25
    reduction_factor: Annotated[int, Ge(2)] = 2
    cpus_per_trial: Count = 1
    gpus_per_trial: GPUs | None = None
    max_restarts: CountOrZero = 2

    @field_validator(*SWEPT)
    @classmethod
    def _different(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("each choice once")
        return value
