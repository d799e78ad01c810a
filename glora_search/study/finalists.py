"""Finalists: where fitness was measured in bf16, the best subnets are scored again in float32.

In bf16 close candidates change places, and the luckiest rounding wins. So the best few of a search
are scored once more in float32, and the winner is the best of these. Plain values; who scores them
is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from glora_search.study.objectives import Figures, Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import SubnetConfig

ATTRIBUTE: Final = "finalists"
"""Of the study: a list of {trial, loss, top1}, best first, as measured in float32."""

Scores = Iterable[tuple[int, "Figures | Exception"]]
"""(position, figures in float32 or what went wrong), each position once."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One of the best of a search, scored again.

    Args:
        trial: Optuna's number.
        loss: On the validation split, float32, nats; None if that failed.
        top1: Likewise, a fraction.
        calibrated_loss: Likewise, where it is the fitness; else None.
    """

    trial: int
    loss: float | None
    top1: float | None
    calibrated_loss: float | None = None


def score_finalists(
    trials: Mapping[int, Outcome],
    objectives: Objectives,
    n: int,
    score: Callable[[Sequence[SubnetConfig]], Scores],
) -> list[Finalist]:
    """The best `n` trials with their float32 figures, best first by these.

    Args:
        trials: All of a study, by Optuna's number.
        objectives: By which they rank, before and after.
        n: How many, if there are so many that did not fail.
        score: Subnets to their figures.
    """
    complete = [number for number, outcome in trials.items() if not outcome.failed]
    best = sorted(complete, key=lambda number: objectives.rank(trials[number]))[:n]
    scored: dict[int, Finalist] = {}
    for position, found in score([trials[number].candidate.subnet for number in best]):
        number = best[position]
        if isinstance(found, Exception):
            scored[number] = Finalist(trial=number, loss=None, top1=None)
            continue
        scored[number] = Finalist(
            trial=number,
            loss=found.loss,
            top1=found.top1,
            calibrated_loss=found.calibrated_loss,
        )

    def rank(finalist: Finalist) -> tuple[float, ...]:
        figures = {name: getattr(finalist, name) for name in ("loss", "top1", "calibrated_loss")}
        return objectives.rank(replace(trials[finalist.trial], **figures))

    return sorted(scored.values(), key=rank)


def winner_of(
    trials: Mapping[int, Outcome], objectives: Objectives, finalists: Sequence[Finalist]
) -> int | None:
    """The number of the best trial: the first finalist, where there are any; None without one."""
    if finalists and finalists[0].loss is not None and finalists[0].trial in trials:
        return finalists[0].trial
    complete = [number for number, outcome in trials.items() if not outcome.failed]
    return min(complete, key=lambda number: objectives.rank(trials[number]), default=None)


def best_trials(
    trials: Mapping[int, Outcome], objectives: Objectives, finalists: Sequence[Finalist]
) -> list[int]:
    """The numbers of the trials that did not fail, best first.

    Finalists come first, in the order of their float32 figures; those that failed then are left
    out.
    """
    scored = [f.trial for f in finalists if f.loss is not None and f.trial in trials]
    known = {finalist.trial for finalist in finalists}
    others = [n for n, outcome in trials.items() if not outcome.failed and n not in known]
    return scored + sorted(others, key=lambda number: objectives.rank(trials[number]))


def to_attribute(finalists: Iterable[Finalist]) -> list[dict[str, Any]]:
    """What is stored with the study."""
    return [asdict(finalist) for finalist in finalists]


def from_attributes(attributes: Mapping[str, Any]) -> list[Finalist]:
    """What is stored with a study; empty where nothing was scored again."""
    return [Finalist(**finalist) for finalist in attributes.get(ATTRIBUTE, ())]
