"""What the sections of a study file are made of: their base, and types of values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Probability = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(2**63)]


def absolute(path: Path) -> Path:
    """Relative paths are relative to the working directory."""
    return path.expanduser().absolute()


def _checked_gpus(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("above 1 a whole number: a fraction is one of a single GPU")
    return value


AbsolutePath = Annotated[Path, Field(strict=False), pydantic.AfterValidator(absolute)]
GPUs = Annotated[NotNegative, pydantic.AfterValidator(_checked_gpus)]


class Section(BaseModel):
    """A table of the file: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)
