"""From the section [sweep] to what Optuna draws from and to the moments at which ASHA compares.

Trials that differ in their epochs have learning-rate schedules of different lengths: after the same
number of epochs a short one has annealed and a long one has not. So time is counted in percent of a
trial's own epochs, and ASHA compares trials at the same point of their schedules.
"""

from __future__ import annotations

import math

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from glora_search.study.study_file import StudyFile
from glora_search.study.sweep_section import SWEPT, FloatRange, IntRange, SweepSection


def swept_space(file: StudyFile) -> dict[str, BaseDistribution]:
    """Swept key of [supernet] to its distribution; epochs that are not given are a quarter, half
    and all of the study's.
    """
    return {name: _distribution(_given(file, name)) for name in SWEPT}


def _given(file: StudyFile, name: str) -> list[float] | FloatRange | IntRange:
    given = getattr(file.sweep, name)
    if given is None:
        whole = file.supernet.epochs
        given = sorted({max(1, whole // 4), max(1, whole // 2), whole})
    return given  # type: ignore[no-any-return]


def _distribution(given: list[float] | FloatRange | IntRange) -> BaseDistribution:
    if isinstance(given, list):
        return CategoricalDistribution(given)
    if isinstance(given, IntRange):
        return IntDistribution(given.low, given.high, log=given.log)
    return FloatDistribution(given.low, given.high, log=given.log)


def written_recipe(file: StudyFile) -> dict[str, float] | None:
    """What [supernet] says, as a trial; None where the ranges leave it out."""
    recipe = {name: getattr(file.supernet, name) for name in SWEPT}
    space = swept_space(file)
    inside = all(_contains(space[name], value) for name, value in recipe.items())
    return recipe if inside else None


def _contains(distribution: BaseDistribution, value: float) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution), "there is no other"
    return distribution.low <= value <= distribution.high


def rungs(section: SweepSection) -> list[float]:
    """The percentages of its epochs at which a trial is scored: where ASHA decides, and the end."""
    found: list[float] = []
    # To the last bit as Ray Tune computes them: what is reported has to reach them.
    while (rung := 100 * section.grace * section.reduction_factor ** len(found)) < 100:
        found.append(rung)
    return [*found, 100.0]


def step_of(percentage: float) -> int:
    """Optuna's steps are whole numbers: rounded up, so that a rung that was reached still is."""
    return math.ceil(percentage)


def scored_epochs(epochs: int, percentages: list[float]) -> dict[int, float]:
    """The epochs after which a trial is scored, each with its percentage. If several percentages
    fall on one epoch, it gets the largest of them.
    """
    return {math.ceil(epochs * p / 100 - 1e-9): p for p in sorted(percentages)}
