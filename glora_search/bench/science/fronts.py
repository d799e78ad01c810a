"""Searches of two objectives at equal evaluations of one supernet, by their hypervolume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from glora_search.bench.science.bed import Bed, timed
from glora_search.study.fronts import Reference, front, growth, point
from glora_search.study.objectives import BY_LOSS_AND_PARAMS

SEARCHES: Final[Mapping[str, Mapping[str, Any]]] = {
    "ours": {"sampler": "evolution", "warm_start": "spread"},
    "Optuna's NSGA-II": {"sampler": "nsgaii", "warm_start": "spread"},
    "ours, uniform start": {"sampler": "evolution"},
    "Optuna's NSGA-II, uniform start": {"sampler": "nsgaii"},
    "random": {"sampler": "random"},
}
"""Name to fields of the search settings."""

_EVERY: Final = 10  # evaluations between two points of a curve


def compare_fronts(bed: Bed) -> dict[str, Any]:
    """The hypervolume of each search, up to the same reference point: the val loss of the smallest
    subnet, and the parameters of the largest one that the limits allow.

    Returns:
        `reference`: loss and parameters; `curves`: search to its hypervolume after every tenth
        evaluation and at its end, in nats; `fronts`: search to (parameters, loss) of its front;
        `seconds`: search to its core seconds.
    """
    (loss,) = bed.losses([bed.space.min_subnet()])
    largest = bed.space.n_params(bed.space.max_subnet())
    most = bed.settings.limits.max_params
    reference = Reference(loss, float(largest if most is None else min(most, largest)))
    found: dict[str, Any] = {
        "reference": {"loss": reference.first, "params": reference.second},
        "curves": {},
        "fronts": {},
        "seconds": {},
    }
    for name, fields in SEARCHES.items():
        settings = replace(bed.settings, objectives=BY_LOSS_AND_PARAMS, **fields)
        outcomes, seconds = timed(partial(bed.outcomes, settings))
        curve = list(
            growth([point(outcome, BY_LOSS_AND_PARAMS) for outcome in outcomes], reference)
        )
        trials = dict(enumerate(outcomes))
        found["curves"][name] = [
            round(volume, 5)
            for k, volume in enumerate(curve, start=1)
            if k % _EVERY == 0 or k == len(curve)
        ]
        found["fronts"][name] = [
            (trials[number].candidate.n_params, trials[number].loss)
            for number in front(trials, BY_LOSS_AND_PARAMS)
        ]
        found["seconds"][name] = round(seconds, 1)
    return found
