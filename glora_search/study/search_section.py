"""The section [search]: how candidates are proposed, scored and recorded.

Defaults of the published method stand in `glora_search.proposing.SearchSettings` as well; a test
compares them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from glora_search.study.objectives import Objectives
from glora_search.study.search_names import (
    OperatorSet,
    SamplerName,
    SearchMode,
    SurrogateName,
    WarmStart,
)
from glora_search.study.section_types import (
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Probability,
    Section,
    Share,
)
from search_spaces import InvalidConfigError

Fitness = Literal["loss", "top1", "calibrated-loss"]
_FITNESSES: Final = get_args(Fitness)


class SearchSection(Section):
    """How candidates are proposed, scored and recorded."""

    sampler: SamplerName = "evolution"
    operators: OperatorSet = "published"
    mode: SearchMode = "generational"
    fitness: Fitness = "loss"
    objectives: Annotated[tuple[str, ...], Field(strict=False)] = ()
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
    holdout: Share = 0.0
    max_failures: Count = 10
    flush_every: Count = 50
    flush_s: Positive = 5.0
    surrogate: SurrogateName = "none"
    proposals: Count = 10
    diversity: CountOrZero = 0
    size_price: NotNegative = 0.0
    warm_start: WarmStart = "none"

    @model_validator(mode="before")
    @classmethod
    def _with_objectives(cls, table: Any) -> Any:
        """Fill in what follows from the objectives where the file does not say it: the fitness is
        the first one, and a front starts from subnets of all sizes.
        """
        named = table.get("objectives") if isinstance(table, dict) else None
        if not isinstance(named, list | tuple) or not named:
            return table
        start = {"warm_start": "spread"} if len(named) > 1 else {}
        first = {"fitness": named[0]} if named[0] in _FITNESSES else {}
        return {**first, **start, **table}

    @field_validator("objectives")
    @classmethod
    def _searchable(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value:
            return value
        try:
            Objectives.of(*value).check_searchable()
        except InvalidConfigError as error:
            raise ValueError(str(error)) from None
        if (fitness := info.data.get("fitness")) not in (None, value[0]):
            raise ValueError(
                f'the first one must be the fitness; got fitness "{fitness}": leave one of the '
                "two keys out"
            )
        if len(value) > 1 and info.data.get("sampler") == "tpe":
            raise ValueError('two objectives need another sampler than "tpe"')
        return value

    @field_validator("surrogate", "diversity", "size_price")
    @classmethod
    def _of_one_objective(cls, value: object, info: ValidationInfo) -> object:
        is_set = value != cls.model_fields[str(info.field_name)].default
        if is_set and len(info.data.get("objectives", ())) > 1:
            raise ValueError("needs one objective; search.objectives has two")
        return value

    @field_validator("mode")
    @classmethod
    def _steady_evolution(cls, value: str, info: ValidationInfo) -> str:
        sampler = info.data.get("sampler")
        if value == "steady-state" and sampler not in (None, "evolution"):
            raise ValueError(f'"steady-state" needs the sampler "evolution"; got "{sampler}"')
        return value

    @field_validator("surrogate", "diversity")
    @classmethod
    def _bred_in_generations(cls, value: object, info: ValidationInfo) -> object:
        sampler, mode = info.data.get("sampler"), info.data.get("mode")
        is_set = value != cls.model_fields[str(info.field_name)].default
        if is_set and (sampler not in (None, "evolution") or mode == "steady-state"):
            raise ValueError(
                'needs the sampler "evolution" in the mode "generational"; '
                f'got "{sampler}", "{mode}"'
            )
        return value

    @field_validator("holdout")
    @classmethod
    def _judged_by_finalists(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("finalists") == 0:
            raise ValueError(
                "only finalists are scored on the held-out images, so finalists must be above 0"
            )
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

    @property
    def optimised(self) -> Objectives:
        """What the search optimises: `objectives`, or the fitness alone."""
        return Objectives.of(*(self.objectives or (self.fitness,)))
