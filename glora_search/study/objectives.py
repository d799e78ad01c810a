"""What a search optimises, always on the validation split.

A new objective is one entry in `OBJECTIVES`, and a field of `Outcome` where its value is new.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A figure of an outcome that a search minimises or maximises.

    Args:
        name: In study files and in the database.
        direction: Optuna's word.
        value: From an outcome to the figure; None for an outcome that failed.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    value: Callable[[Outcome], float | None] = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        return _named, (self.name,)  # functions without a name cannot be pickled


def _named(name: str) -> Objective:
    return OBJECTIVES[name]


LOSS: Final = Objective(name="loss", direction="minimize", value=lambda outcome: outcome.loss)
TOP1: Final = Objective(name="top1", direction="maximize", value=lambda outcome: outcome.top1)
PARAMS: Final = Objective(
    name="params",
    direction="minimize",
    value=lambda outcome: None if outcome.failed else float(outcome.candidate.n_params),
)
OBJECTIVES: Final = {objective.name: objective for objective in (LOSS, TOP1, PARAMS)}
"""Every objective by its name."""


@dataclass(frozen=True)
class Objectives:
    """The objectives of a study, in the order of the values of its trials.

    Args:
        each: At least one, each once.

    Raises:
        InvalidConfigError: None, or one of them twice.
    """

    each: tuple[Objective, ...]

    def __post_init__(self) -> None:
        if not self.each or len(set(self.each)) < len(self.each):
            raise InvalidConfigError(
                f"a study has one or more objectives, each once; got {str(self) or 'none'}"
            )

    @classmethod
    def of(cls, *names: str) -> Objectives:
        """The objectives of these names.

        Raises:
            InvalidConfigError: An unknown name, the same one twice, or none.
        """
        unknown = [name for name in names if name not in OBJECTIVES]
        if unknown:
            raise InvalidConfigError(
                f"unknown objective {unknown[0]!r}; accepted: {', '.join(OBJECTIVES)}"
            )
        return cls(tuple(OBJECTIVES[name] for name in names))

    def __str__(self) -> str:
        return ",".join(objective.name for objective in self.each)

    @property
    def only(self) -> Objective:
        """The single objective.

        Raises:
            InvalidConfigError: There are several; the search cannot rank by them yet.
        """
        if len(self.each) > 1:
            raise InvalidConfigError(f"a search optimises one objective; got {self}")
        return self.each[0]

    def values(self, outcome: Outcome) -> tuple[float, ...] | None:
        """The values of a trial; None for an outcome that failed."""
        values = [objective.value(outcome) for objective in self.each]
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(values) else None

    def rank(self, outcome: Outcome) -> tuple[float, float, int, int, int]:
        """A sort key, best first, total within a study; failures come last.

        Ties are broken by loss (on 200 images half of the candidates tie in top-1), then fewer
        parameters win, then the earlier candidate.

        Raises:
            InvalidConfigError: There are several objectives.
        """
        candidate, value = outcome.candidate, self.only.value(outcome)
        if value is None or outcome.loss is None:
            return math.inf, math.inf, candidate.n_params, *candidate.place
        first = value if self.only.direction == "minimize" else -value
        return first, outcome.loss, candidate.n_params, *candidate.place


BY_LOSS: Final = Objectives((LOSS,))
BY_TOP1: Final = Objectives((TOP1,))
