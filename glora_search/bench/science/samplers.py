"""Proposers at equal evaluations of one supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, Final

from glora_search.bench.runs import ArmFigures
from glora_search.bench.science.bed import Bed, timed

SAMPLERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "evolution": {"sampler": "evolution", "operators": "published"},
    "local operators": {"sampler": "evolution", "operators": "local"},
    "random": {"sampler": "random"},
    "tpe": {"sampler": "tpe"},
    "nsgaii": {"sampler": "nsgaii"},
    "evolution, ridge surrogate": {"surrogate": "ridge"},
    "evolution, tree surrogate": {"surrogate": "trees"},
    "evolution, diverse parents": {"diversity": 6},
    "evolution, median-rank start": {"warm_start": "median-rank"},
}
"""Name to fields of the search settings."""


def compare_samplers(bed: Bed) -> tuple[dict[str, ArmFigures], dict[str, Any]]:
    """The winner of each sampler.

    Returns:
        The winners by sampler; and under `curves` the best val loss after each evaluation.
    """
    arms, curves = {}, {}
    for name, fields in SAMPLERS.items():
        settings = replace(bed.settings, **fields)
        outcomes, seconds = timed(partial(bed.outcomes, settings))
        fine = [outcome for outcome in outcomes if not outcome.failed]
        best = min(fine, key=settings.objectives.rank)
        arms[name] = bed.subnet_figures(best.candidate.subnet, seconds)
        losses = [outcome.loss for outcome in fine if outcome.loss is not None]
        curves[name] = [round(loss, 5) for loss in accumulate(losses, min)]
    return arms, {"curves": curves}
