"""Which trial is what: the order of a search, the winner, the best, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypeAlias

from glora_search.study.fronts import undominated
from glora_search.study.objectives import Objective, Objectives
from glora_search.study.outcomes import Outcome

Trials: TypeAlias = Mapping[int, Outcome]
"""Outcomes by Optuna's trial number."""

_BEST_FRACTION: Final = 0.1
_BEST_AT_LEAST: Final = 20


def in_search_order(trials: Trials) -> dict[int, Outcome]:
    """The trials sorted by (generation, index): the same in whatever order results arrived."""
    return dict(sorted(trials.items(), key=lambda item: (item[1].candidate.place, item[0])))


def complete(trials: Trials) -> dict[int, Outcome]:
    """The trials that have numbers."""
    return {number: outcome for number, outcome in trials.items() if not outcome.failed}


def ranking(trials: Trials, objectives: Objectives) -> list[int]:
    """The numbers of the complete trials, best first; the first one is the winner."""
    ranked = complete(trials)
    return sorted(ranked, key=lambda number: objectives.rank(ranked[number]))


def best_share(trials: Trials, objectives: Objectives) -> list[int]:
    """The best tenth and at least 20, but never more than the better half; best first."""
    ranked = ranking(trials, objectives)
    wanted = max(_BEST_AT_LEAST, math.ceil(_BEST_FRACTION * len(ranked)))
    return ranked[: min(wanted, math.ceil(len(ranked) / 2))]


def pareto_front(trials: Trials, measure: Objective) -> list[int]:
    """The complete trials that no other beats in `measure` with as few or fewer parameters.

    Args:
        trials: Failures among them are left out.
        measure: What counts besides the parameters: val loss (down) or val top-1 (up).

    Returns:
        Trial numbers, parameters rising, the measure getting better. Of equal trials, the earliest.
    """
    sign = -1 if measure.higher_is_better else 1
    return undominated(
        (outcome.candidate.n_params, sign * value, outcome.candidate.place, number)
        for number, outcome in trials.items()
        if (value := measure.value(outcome)) is not None
    )
