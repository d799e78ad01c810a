"""The sections of a study file, as pydantic models: keys, types, accepted values, defaults.

`[study] [backbone] [data] [space] [supernet] [sweep] [search] [cluster] [export]`. Defaults of the
published method stand in the records that use them as well (`supernet.training.Recipe` and
`glora_search.proposing.SearchSettings`; a test compares them), so that this module imports neither
torch nor Optuna and a wrong study file is told at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, ValidationInfo, field_validator

from glora_search.study.credentials import ELSEWHERE, holds_password
from glora_search.study.outcomes import STUDY_NAME
from glora_search.study.section_types import (
    AbsolutePath,
    Count,
    CountOrZero,
    GPUs,
    NotNegative,
    Positive,
    Probability,
    Section,
    Seed,
    absolute,
)
from glora_search.study.sweep_section import SweepSection
from search_spaces import SUPPORTS, check_token, load_preset


def _checked_name(name: str) -> str:
    if not STUDY_NAME.fullmatch(name):
        raise ValueError("1 to 200 letters, digits, '.', '_' and '-', not starting with '.'")
    return name


def _checked_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("accepted: auto, cpu, cuda, cuda:<number>")
    return device


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
Device = Annotated[str, pydantic.AfterValidator(_checked_device)]
Workers = Annotated[int | Literal["auto"], pydantic.PlainValidator(_checked_workers)]
RayAddress = Annotated[str, pydantic.AfterValidator(_checked_address)]
ArtifactFolder = Annotated[str, pydantic.AfterValidator(_checked_artifacts)]


class StudySection(Section):
    """Who is this study, and where do its files go."""

    name: StudyName
    seed: Seed = 0
    directory: AbsolutePath = Field(
        default_factory=lambda: Path("glora-search-runs").absolute(), validate_default=False
    )


class _Data(Section):
    # The backbone's own timm data configuration decides; each key here overrides one of its
    # entries.
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos"] | None = None
    mean: list[float] | None = None
    std: list[Positive] | None = None
    crop_pct: Positive | None = None
    crop_mode: Literal["center", "squash", "border"] | None = None
    cache_gb: NotNegative = 4.0
    decode_workers: CountOrZero = 2

    def preprocessing_overrides(self) -> dict[str, Any]:
        """The entries of the backbone's data configuration that the file overrides."""
        names = ("interpolation", "mean", "std", "crop_pct", "crop_mode")
        given = {name: getattr(self, name) for name in names}
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if value is not None
        }


class DigitsData(_Data):
    """The 1,797 handwritten digits that scikit-learn ships, 8 x 8, one channel."""

    source: Literal["digits"]
    classes: list[Annotated[int, Ge(0), Le(9)]] = Field(default=[5, 6, 7, 8, 9])
    n_train: Count | Literal["all"] = 100
    n_val: CountOrZero = 200
    seed: Seed = 0


class VTABData(_Data):
    """VTAB-1k in its exchange format: ROOT/<task>/{train800,val200,test}.txt beside the images."""

    source: Literal["vtab"]
    root: AbsolutePath
    task: str
    train: str = "train800.txt"
    val: str = "val200.txt"
    test: str = "test.txt"
    num_classes: Count | None = None


class FolderData(_Data):
    """A folder a class below train/, val/ and test/; without val/ a part of train/ is taken."""

    source: Literal["folder"]
    root: AbsolutePath
    train: str = "train"
    val: str = "val"
    test: str = "test"
    val_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    seed: Seed = 0


class TimmData(_Data):
    """Anything that timm.data.create_dataset reads: torchvision, Hugging Face, webdataset, tar."""

    source: Literal["timm"]
    name: str
    root: AbsolutePath | None = None
    train_split: str = "train"
    val_split: str | None = None
    test_split: str = "test"
    n_train: Count | None = None
    n_val: Count | None = None
    download: bool = False
    seed: Seed = 0


DataSection = Annotated[
    DigitsData | VTABData | FolderData | TimmData, Field(discriminator="source")
]


class _Recipe(Section):
    epochs: Count = 500
    batch_size: Count = 64
    lr: Positive = 5e-4
    weight_decay: NotNegative = 1e-4
    warmup_epochs: CountOrZero = 10
    warmup_lr: Positive = 1e-6
    min_lr: NotNegative = 1e-5
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def recipe_fields(self) -> dict[str, Any]:
        """The arguments of `supernet.training.Recipe`."""
        return {name: getattr(self, name) for name in _Recipe.model_fields}


class PretrainSection(_Recipe):
    """How to train a backbone in place, on other data, where no weights are at hand."""

    data: DataSection


class BackboneSection(Section):
    """Which timm model, and where its weights come from: exactly one of the three."""

    model: str
    args: dict[str, Any] = Field(default={})
    pretrained: bool = False
    checkpoint: AbsolutePath | None = None
    pretrain: PretrainSection | None = None

    @field_validator("pretrain")
    @classmethod
    def _one_origin(
        cls, value: PretrainSection | None, info: ValidationInfo
    ) -> PretrainSection | None:
        given = [
            key
            for key, present in (
                ("pretrained", info.data.get("pretrained")),
                ("checkpoint", info.data.get("checkpoint") is not None),
                ("pretrain", value is not None),
            )
            if present
        ]
        complete = {"pretrained", "checkpoint"} <= info.data.keys()
        if complete and len(given) != 1:
            raise ValueError(
                "give the weights' origin once: pretrained = true, checkpoint = '<file>' or "
                f"[backbone.pretrain]; got {' and '.join(given) or 'none'}"
            )
        return value


class SpaceSection(Section):
    """What may be chosen, and in which layers."""

    preset: str | None = None
    choices: dict[Literal["A", "B", "C", "D", "E"], list[str]] | None = None
    patterns: Annotated[list[str], Field(min_length=1)] | None = None

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is not None:
            load_preset(value)
        return value

    @field_validator("choices")
    @classmethod
    def _legal_choices(
        cls, value: dict[str, list[str]] | None, info: ValidationInfo
    ) -> dict[str, list[str]] | None:
        if value is None:
            if "preset" in info.data and info.data["preset"] is None:
                raise ValueError("give either preset = '<name>' or a table [space.choices]")
            return value
        if info.data.get("preset") is not None:
            raise ValueError("give either preset or choices, not both")
        if missing := [support for support in SUPPORTS if support not in value]:
            raise ValueError(f"{', '.join(missing)} missing; a support tensor may be ['none']")
        for support, tokens in value.items():
            if not tokens or len(set(tokens)) < len(tokens):
                raise ValueError(f"{support} needs at least one choice, each once; got {tokens}")
            for token in tokens:
                check_token(support, token)
        return value

    def resolved_choices(self) -> dict[str, list[str]]:
        """Support tensor to tokens, whichever way they were given."""
        if self.choices is not None:
            return {str(support): tokens for support, tokens in self.choices.items()}
        assert self.preset is not None, "checked when the section was made"
        return load_preset(self.preset).choices


class SupernetSection(_Recipe):
    """How the supernet stores its choices and trains: on Ray workers, each with a path of its own a
    step, or with workers = 0 in the driver itself, which gives what one worker gives.
    """

    storage: Literal["entangled", "separate"] = "entangled"
    drop_path: Annotated[float, Ge(0), Lt(1)] = 0.1
    checkpoint: AbsolutePath | None = None
    checkpoint_every_s: NotNegative = 30.0
    device: Device = "auto"
    threads: Count | None = None
    workers: CountOrZero = 0
    cpus_per_worker: Count = 1
    gpus_per_worker: NotNegative | None = None
    max_restarts: CountOrZero = 10


class SearchSection(Section):
    """How candidates are proposed, scored and recorded."""

    sampler: Literal["evolution", "random", "tpe", "nsgaii"] = "evolution"
    operators: Literal["local", "published"] = "local"
    mode: Literal["generational", "steady-state"] = "generational"
    fitness: Literal["loss", "top1"] = "loss"
    population: Count = 50
    generations: CountOrZero = 20
    parents: Count = 10
    mutations: CountOrZero = 25
    crossovers: CountOrZero = 25
    mutation_probability: Probability = 0.2
    min_params: CountOrZero = 0
    max_params: CountOrZero | None = None
    batch_size: Count = 256
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    finalists: CountOrZero = 10
    max_failures: Count = 10
    flush_every: Count = 50
    flush_s: Positive = 5.0

    @field_validator("mode")
    @classmethod
    def _steady_evolution(cls, value: str, info: ValidationInfo) -> str:
        sampler = info.data.get("sampler")
        if value == "steady-state" and sampler not in (None, "evolution"):
            raise ValueError(f'"steady-state" needs the sampler "evolution"; got "{sampler}"')
        return value

    @field_validator("parents")
    @classmethod
    def _parents_fit(cls, value: int, info: ValidationInfo) -> int:
        population = info.data.get("population")
        if population is not None and value > population:
            raise ValueError(f"at most the population of {population}; got {value}")
        return value

    @field_validator("crossovers")
    @classmethod
    def _children_fit(cls, value: int, info: ValidationInfo) -> int:
        population, mutations = info.data.get("population"), info.data.get("mutations")
        if population is not None and mutations is not None and mutations + value > population:
            raise ValueError(
                f"mutations + crossovers must not exceed the population of {population}; "
                f"got {mutations} + {value}"
            )
        return value

    @field_validator("max_params")
    @classmethod
    def _limits_ordered(cls, value: int | None, info: ValidationInfo) -> int | None:
        least = info.data.get("min_params")
        if value is not None and least is not None and value < least:
            raise ValueError(f"at least min_params of {least}; got {value}")
        return value


class ClusterSection(Section):
    """Where candidates are evaluated: on Ray actors, or with workers = 0 in the driver itself; and
    where what the study makes is kept besides its directory.
    """

    address: RayAddress | None = None
    workers: Workers = 2
    cpus_per_worker: Count = 1
    gpus_per_worker: GPUs = 0.0
    max_tries: Count = 3
    candidate_timeout_s: Positive = 600.0
    wait_s: NotNegative = 0.0
    artifacts: ArtifactFolder | None = None


class ExportSection(Section):
    """What is written at the end of a search."""

    directory: AbsolutePath | None = None
    tolerance: Positive = 1e-3


class StudyFile(Section):
    """A whole study file, resolved: every key has its value."""

    study: StudySection
    backbone: BackboneSection
    data: DataSection
    space: SpaceSection
    supernet: SupernetSection = SupernetSection()
    sweep: SweepSection = SweepSection()
    search: SearchSection = SearchSection()
    cluster: ClusterSection = ClusterSection()
    export: ExportSection = ExportSection()

    @property
    def run_directory(self) -> Path:
        """The folder of this study's files."""
        return self.study.directory / self.study.name

    @property
    def export_directory(self) -> Path:
        """Where the winner is exported at the end of the search."""
        return self.export.directory or self.run_directory / "export"

    def to_json(self) -> str:
        """The resolved study, as stored in the database."""
        return self.model_dump_json()
