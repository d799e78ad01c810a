"""The sections [study], [cluster] and [export]: a name, machines, and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field, ValidationInfo, field_validator

from glora_search.study.credentials import ELSEWHERE, holds_password
from glora_search.study.format_names import FormatName
from glora_search.study.outcomes import STUDY_NAME
from glora_search.study.section_types import (
    AbsolutePath,
    Count,
    CountOrZero,
    GPUs,
    NotNegative,
    Positive,
    Section,
    Seed,
    absolute,
)


def _checked_name(name: str) -> str:
    if not STUDY_NAME.fullmatch(name):
        raise ValueError("1 to 200 letters, digits, '.', '_' and '-', not starting with '.'")
    return name


def _checked_workers(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_count and value != "auto":
        raise ValueError('accepted: a number from 0 on, or "auto"')
    return value


def _checked_address(address: str) -> str:
    if "@" in address:
        raise ValueError("no user and no password goes here; a token goes into RAY_AUTH_TOKEN_PATH")
    return address


def _checked_artifacts(place: str) -> str:
    if not place:
        raise ValueError("accepted: a path, or a URL that fsspec knows, such as s3://bucket/folder")
    if "://" not in place:
        return str(absolute(Path(place)))
    if holds_password(place) or "?" in place:
        raise ValueError(f"no password and no options go into the URL; {ELSEWHERE}")
    return place.rstrip("/")


StudyName = Annotated[str, pydantic.AfterValidator(_checked_name)]
Workers = Annotated[int | Literal["auto"], pydantic.PlainValidator(_checked_workers)]
RayAddress = Annotated[str, pydantic.AfterValidator(_checked_address)]
ArtifactFolder = Annotated[str, pydantic.AfterValidator(_checked_artifacts)]


class StudySection(Section):
    """Who is this study, and where do its files go."""

    name: StudyName
    preset: Literal["published"] | None = None
    seed: Seed = 0
    directory: AbsolutePath = Field(
        default_factory=lambda: Path("glora-search-runs").absolute(), validate_default=False
    )


class ClusterSection(Section):
    """Where candidates are evaluated: on Ray actors, or with workers = 0 in the driver itself. Also
    where a second copy of the study's results is kept.
    """

    address: RayAddress | None = None
    workers: Workers = 2
    cpus_per_worker: Count = 1
    gpus_per_worker: GPUs = 0.0
    max_tries: Count = 3
    candidate_timeout_s: Positive = 600.0
    wait_s: NotNegative = 0.0
    artifacts: ArtifactFolder | None = None


FinetuneKeep = Literal["best", "average"]
"""What is kept of a fine-tuning: the epoch with the lowest val loss, or the mean over epochs."""


class ExportSection(Section):
    """What is written at the end of a search: the winner, the winner trained on, or one network of
    several subnets.
    """

    directory: AbsolutePath | None = None
    tolerance: Positive = 1e-3
    average: Count = 1
    soup: CountOrZero = 0
    finetune_epochs: CountOrZero = 0
    finetune_lr: Positive = 3e-3
    finetune_batch_size: Count | None = None
    finetune_keep: FinetuneKeep = "best"
    finetune_runs: Count = 1
    calibrate: bool = False
    formats: tuple[FormatName, ...] = ()

    @field_validator("formats")
    @classmethod
    def _each_once(cls, value: tuple[FormatName, ...]) -> tuple[FormatName, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each format once")
        return value

    @field_validator("soup")
    @classmethod
    def _soup_or_average(cls, value: int, info: ValidationInfo) -> int:
        average = info.data.get("average", 1)
        if value == 1:
            raise ValueError("a soup needs 2 candidates or more; 0 makes none")
        if value and average > 1:
            raise ValueError(
                f"it excludes export.average = {average}; set export.soup = 0 or export.average = 1"
            )
        return value

    @field_validator("finetune_runs")
    @classmethod
    def _several_averaged(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("finetune_keep") == "best":
            raise ValueError('several runs are averaged: set export.finetune_keep = "average"')
        return value

    @field_validator("finetune_epochs")
    @classmethod
    def _one_subnet(cls, value: int, info: ValidationInfo) -> int:
        for key, none in (("average", 1), ("soup", 0)):
            several = info.data.get(key, none)
            if value and several != none:
                raise ValueError(
                    f"it excludes export.{key} = {several}, since one subnet is trained on; "
                    f"set export.finetune_epochs = 0 or export.{key} = {none}"
                )
        return value
