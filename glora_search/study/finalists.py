"""Finalists: the best subnets of a search are scored again, and the winner is the best of these.

There are two reasons to do so. If the search measured fitness in bf16, rounding can change the
order of close candidates, so they are scored in float32. If a part of the validation split was held
out, they are scored on that part: the best of a thousand candidates is partly the luckiest on the
images of the search, and the held-out images are free of this bias. This module holds plain values;
the function that scores is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from glora_search.study.objectives import Figures, Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import SubnetConfig

ATTRIBUTE: Final = "finalists"
"""Of the study: a list of the fields of `Finalist`, best first."""

Scores = Iterable[tuple[int, "Figures | Exception"]]
"""(position, figures in float32 or what went wrong), each position once."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One of the best of a search, scored again.

    Args:
        trial: Optuna's number.
        loss: On the validation split or its held-out part, float32, nats; None if that failed.
        top1: Likewise, a fraction.
        calibrated_loss: Likewise, where it is the fitness; else None.
        held_out: Images of the held-out part, where it was scored on that; None for the images of
            the search.
    """

    trial: int
    loss: float | None
    top1: float | None
    calibrated_loss: float | None = None
    held_out: int | None = None


def score_finalists(
    trials: Mapping[int, Outcome],
    objectives: Objectives,
    n: int,
    score: Callable[[Sequence[SubnetConfig]], Scores],
    *,
    held_out: int | None = None,
) -> list[Finalist]:
    """The best `n` trials with their new figures, best first by these.

    Args:
        trials: All of a study, by Optuna's number.
        objectives: By which they rank, before and after.
        n: How many, if there are so many that did not fail.
        score: Subnets to their figures.
        held_out: As in `Finalist`.
    """
    complete = [number for number, outcome in trials.items() if not outcome.failed]
    best = sorted(complete, key=lambda number: objectives.rank(trials[number]))[:n]
    scored: dict[int, Finalist] = {}
    for position, found in score([trials[number].candidate.subnet for number in best]):
        number = best[position]
        if isinstance(found, Exception):
            scored[number] = Finalist(trial=number, loss=None, top1=None, held_out=held_out)
            continue
        scored[number] = Finalist(
            trial=number,
            loss=found.loss,
            top1=found.top1,
            calibrated_loss=found.calibrated_loss,
            held_out=held_out,
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

    Finalists come first, in the order of their new figures; those that failed then are left
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
