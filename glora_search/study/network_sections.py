"""The sections [backbone], [space] and [supernet]: the network, its search space, its training.

Defaults of the published method stand in `supernet.training.Recipe` as well; a test compares them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import pydantic
from annotated_types import Ge, Lt
from pydantic import Field, ValidationInfo, field_validator

from glora_search.study.data_sections import DataSection
from glora_search.study.section_types import (
    AbsolutePath,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Section,
)
from search_spaces import SUPPORTS, check_token, load_preset


def _checked_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("accepted: auto, cpu, cuda, cuda:<number>")
    return device


AUTO: Final = 0
"""The number of epochs that stands for "auto" until space and data are known."""


def _checked_epochs(epochs: object) -> object:
    if epochs == "auto":
        return AUTO
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < AUTO:
        raise ValueError('accepted: a number from 1 on, or "auto"')
    return epochs


Epochs = Annotated[int, pydantic.PlainValidator(_checked_epochs)]
Device = Annotated[str, pydantic.AfterValidator(_checked_device)]


class _Recipe(Section):
    epochs: Count = 500
    batch_size: Count = 64
    lr: Positive = 5e-4
    weight_decay: NotNegative = 1e-4
    warmup_epochs: CountOrZero = 10
    warmup_lr: Positive = 1e-6
    min_lr: NotNegative = 1e-5
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    shift: CountOrZero = 0
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0

    def recipe_fields(self) -> dict[str, Any]:
        """The arguments of `supernet.training.Recipe`."""
        return {name: getattr(self, name) for name in _Recipe.model_fields}


class PretrainSection(_Recipe):
    """How to train a backbone where there are no weights: all of it, or as VLoRA, which has fewer
    weights and becomes a plain network of full size when it has trained.
    """

    data: DataSection
    method: Literal["full", "vlora"] = "full"


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


_PLACES: Final = {
    *("checkpoint", "checkpoint_every_s", "device", "threads"),
    *("workers", "cpus_per_worker", "gpus_per_worker", "max_restarts"),
}
"""The keys of [supernet] that say where and from what, not how it trains."""


class SupernetSection(_Recipe):
    """How the supernet stores its choices, and how it trains. With workers > 0 it trains on Ray,
    and each worker takes a path of its own in each step. With workers = 0 it trains in the driver,
    with the same result as one worker.
    """

    epochs: Epochs = AUTO
    storage: Literal["entangled", "separate"] = "separate"
    drop_path: Annotated[float, Ge(0), Lt(1)] = 0.1
    paths: Literal["uniform", "fair", "budget"] = "fair"
    paths_per_step: Count = 4
    sandwich: CountOrZero = 0
    noise: NotNegative = 0.0
    consistency: NotNegative = 0.0
    lr_factors: dict[Literal["A", "B", "C", "D", "E", "down", "up", "head"], Positive] = Field(
        default={}
    )
    init: Literal["random", "gradient"] = "random"
    checkpoint: AbsolutePath | None = None
    checkpoint_every_s: NotNegative = 30.0
    device: Device = "auto"
    threads: Count | None = None
    workers: CountOrZero = 0
    cpus_per_worker: Count = 1
    gpus_per_worker: NotNegative | None = None
    max_restarts: CountOrZero = 10

    def training_fields(self) -> dict[str, Any]:
        """The keys that decide what the trained supernet is, wherever it trains."""
        table = self.model_dump(mode="json")
        return {key: value for key, value in table.items() if key not in _PLACES}
