"""What a study of two objectives has found: its front, the knee, and the hypervolume over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glora_search.study.fronts import front, growth, knee_of, point, reference_of
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class FrontStatus:
    """What a study of two objectives has found.

    Args:
        objectives: Their names.
        members: Trial number and outcome of each subnet on the front, the second objective rising.
        knee: The trial at the front's knee.
        hypervolume: Of the front, in the unit of the first objective; see `fronts.hypervolume`.
            None while there is no reference.
        reference: The worst of the first generation in each objective, to which it is measured.
        by_generation: Generation to the hypervolume after it.
    """

    objectives: tuple[str, ...]
    members: tuple[tuple[int, Outcome], ...]
    knee: int
    hypervolume: float | None
    reference: tuple[float, ...] | None
    by_generation: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "objectives": list(self.objectives),
            "hypervolume": self.hypervolume,
            "reference": self.reference and list(self.reference),
            "knee": self.knee,
            "trials": [
                {
                    "trial": trial,
                    "loss": outcome.loss,
                    "top1": outcome.top1,
                    "n_params": outcome.candidate.n_params,
                    "digest": outcome.candidate.subnet.digest,
                }
                for trial, outcome in self.members
            ],
            "hypervolume_by_generation": {str(g): v for g, v in self.by_generation.items()},
        }


def front_status(trials: Mapping[int, Outcome], objectives: Objectives) -> FrontStatus | None:
    """The front of a study of two objectives; None before a subnet is evaluated.

    Args:
        trials: All of the study, by Optuna's number.
        objectives: Two.
    """
    members = front(trials, objectives)
    if not members:
        return None
    ordered = sorted(trials.values(), key=lambda outcome: outcome.candidate.place)
    reference = reference_of(ordered, objectives)
    by_generation: dict[int, float] = {}
    if reference is not None:
        grown = growth([point(outcome, objectives) for outcome in ordered], reference)
        # The last of a generation stays.
        by_generation = dict(zip((o.candidate.generation for o in ordered), grown, strict=True))
    return FrontStatus(
        objectives=tuple(objective.name for objective in objectives.each),
        members=tuple((number, trials[number]) for number in members),
        knee=knee_of(trials, members, objectives),
        hypervolume=by_generation[max(by_generation)] if by_generation else None,
        reference=None if reference is None else objectives.values_of(reference.costs),
        by_generation=by_generation,
    )
