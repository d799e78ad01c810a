"""What a search optimises, always on the validation split.

A new objective is one entry in `OBJECTIVES`, and a field of `Outcome` where its value is new.

A study has one objective or two. Where one subnet has to be named, such as the winner, the first
one ranks. Two objectives have a front besides: see `glora_search.study.fronts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError


class Figures(Protocol):
    """What is measured of a subnet on the validation split: of an outcome, or of a finalist."""

    @property
    def loss(self) -> float | None:
        """Mean cross-entropy, nats."""
        ...

    @property
    def top1(self) -> float | None:
        """Fraction of the images that is right."""
        ...

    @property
    def calibrated_loss(self) -> float | None:
        """The loss after a temperature was fitted; None where that is not the fitness."""
        ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A figure of an outcome that a search minimises or maximises.

    Args:
        name: In study files and in the database.
        direction: Optuna's word.
        title: In texts.
        axis_title: On the axes of figures.
        scale: From the value to the unit of `axis_title`.
        format: Of the value, as in a format string.
        value: From an outcome to the figure; None for an outcome that failed.
        measured: From what is measured to the figure; None for an objective that needs no
            measurement.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    title: str
    axis_title: str
    scale: float = 1.0
    format: str = ".4f"
    value: Callable[[Outcome], float | None] = field(repr=False, compare=False)
    measured: Callable[[Figures], float | None] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def higher_is_better(self) -> bool:
        """Whether the search maximises it."""
        return self.direction == "maximize"

    @property
    def best(self) -> str:
        """The best value in words, such as `lowest val loss`."""
        return f"{'highest' if self.higher_is_better else 'lowest'} {self.title}"

    def text(self, value: float | None) -> str:
        """A value as tables show it; a dash where there is none."""
        return "-" if value is None else format(value, self.format)

    def __reduce__(self) -> tuple[object, ...]:
        return _named, (self.name,)  # functions without a name cannot be pickled


def _named(name: str) -> Objective:
    return OBJECTIVES[name]


def _loss(figures: Figures) -> float | None:
    return figures.loss


def _calibrated_loss(figures: Figures) -> float | None:
    return figures.calibrated_loss


def _top1(figures: Figures) -> float | None:
    return figures.top1


LOSS: Final = Objective(
    name="loss",
    direction="minimize",
    title="val loss",
    axis_title="val loss (nats)",
    value=_loss,
    measured=_loss,
)
CALIBRATED_LOSS: Final = Objective(
    name="calibrated-loss",
    direction="minimize",
    title="calibrated val loss",
    axis_title="calibrated val loss (nats)",
    value=_calibrated_loss,
    measured=_calibrated_loss,
)
TOP1: Final = Objective(
    name="top1",
    direction="maximize",
    title="val top-1",
    axis_title="val top-1 (%)",
    scale=100.0,
    value=_top1,
    measured=_top1,
)
PARAMS: Final = Objective(
    name="params",
    direction="minimize",
    title="adapter parameters",
    axis_title="adapter parameters (without the head)",
    format=",.0f",
    value=lambda outcome: None if outcome.failed else float(outcome.candidate.n_params),
)
OBJECTIVES: Final = {
    objective.name: objective for objective in (LOSS, TOP1, PARAMS, CALIBRATED_LOSS)
}
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
    def first(self) -> Objective:
        """What ranks subnets where one of them has to be named."""
        return self.each[0]

    @property
    def are_two(self) -> bool:
        """Whether a search keeps a front: two objectives, neither of which stands above."""
        return len(self.each) == 2

    def values_of(self, costs: Sequence[float]) -> tuple[float, ...]:
        """The inverse of the signs that `costs` gives."""
        return tuple(
            -cost if objective.higher_is_better else cost
            for objective, cost in zip(self.each, costs, strict=True)
        )

    def check_searchable(self) -> None:
        """Raise InvalidConfigError unless a search can have these objectives.

        The first is what an evaluation measures. A second one is known of a subnet before that.
        """
        measured = [objective.measured is not None for objective in self.each]
        if measured not in ([True], [True, False]):
            names = [o.name for o in OBJECTIVES.values() if o.measured is not None]
            free = [o.name for o in OBJECTIVES.values() if o.measured is None]
            raise InvalidConfigError(
                f"a search has one of {', '.join(names)}, alone or followed by "
                f"{' or '.join(free)}; got {self}"
            )

    def costs(self, outcome: Outcome) -> tuple[float, ...] | None:
        """The values with signs that make lower better; None for an outcome that failed."""
        values = self.values(outcome)
        if values is None:
            return None
        return tuple(
            -value if objective.higher_is_better else value
            for objective, value in zip(self.each, values, strict=True)
        )

    def fitness(self, outcome: Outcome) -> float | None:
        """The value of the first objective, with the price of the size; None for an outcome that
        failed.

        Raises:
            InvalidConfigError: It was not measured.
        """
        value = _priced(self.first, outcome)
        if value is None and outcome.loss is not None:
            raise InvalidConfigError(
                f"generation {outcome.candidate.generation}, index {outcome.candidate.index} has "
                f"no {self.first.name}: it was evaluated for another fitness"
            )
        return value

    def values(self, outcome: Outcome) -> tuple[float, ...] | None:
        """The values of a trial, with the price of the size; None for an outcome that failed."""
        values = [_priced(objective, outcome) for objective in self.each]
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(values) else None

    def rank(self, outcome: Outcome) -> tuple[float, float, int, int, int]:
        """A sort key by the first objective, best first, total within a study; failures come last.

        Ties are broken by loss (on 200 images half of the candidates tie in top-1), then fewer
        parameters win, then the earlier candidate.

        Raises:
            InvalidConfigError: The first objective was not measured.
        """
        candidate, value = outcome.candidate, self.fitness(outcome)
        if value is None or outcome.loss is None:
            return math.inf, math.inf, candidate.n_params, *candidate.place
        first = -value if self.first.higher_is_better else value
        return first, outcome.loss, candidate.n_params, *candidate.place


def _priced(objective: Objective, outcome: Outcome) -> float | None:
    """The value with the price of the size, which makes it worse. A count has no price."""
    value, price = objective.value(outcome), outcome.candidate.price
    if value is None or not price or objective.measured is None:
        return value
    return value - price if objective.higher_is_better else value + price


BY_LOSS: Final = Objectives((LOSS,))
BY_TOP1: Final = Objectives((TOP1,))
BY_LOSS_AND_PARAMS: Final = Objectives((LOSS, PARAMS))
