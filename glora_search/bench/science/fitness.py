"""What a search is judged by: several fitnesses, all of one supernet, each with its winner."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from glora_search.bench.runs import ArmFigures
from glora_search.bench.science.bed import Bed, timed
from glora_search.evaluating import SubnetScorer
from glora_search.proposing import SearchSettings
from glora_search.stages.prepare import device_of
from glora_search.stages.recipes import design_of, recipe_of
from glora_search.study.objectives import Objectives
from search_spaces import SubnetConfig
from supernet import Evaluation, SubnetEvaluator, Supernet, train_supernet
from supernet.data import fold, hold_out

FITNESSES: Final[Mapping[str, Mapping[str, Any]]] = {
    "val loss": {},
    "val top-1": {"objectives": Objectives.of("top1")},
    "calibrated val loss": {"objectives": Objectives.of("calibrated-loss")},
    "val loss, size price of 0.05": {"size_price": 0.05},
}
"""Name to fields of the search settings."""

_FOLDS: Final = 3
_FINALISTS: Final = 10
_RANDOM: Final = 50


def compare_fitness(bed: Bed) -> tuple[dict[str, ArmFigures], dict[str, Any]]:
    """The winner of each fitness, with the weights of the one supernet.

    *Half of val*: the search sees one half of the val split. *Finalists*: of its ten best the one
    that is best on the other half. *Folds*: the mean over three parts of train and val together,
    each scored with a supernet that was trained on the other two.

    Returns:
        The winners by fitness; and under `flattery` how much higher the loss on the half that the
        search did not see is than on the half that it saw: of its winner, and the mean over random
        subnets.
    """
    arms: dict[str, ArmFigures] = {}
    batch_size = bed.materials.file.search.batch_size
    scorer = partial(SubnetEvaluator, bed.supernet, batch_size=batch_size, calibrated=True)
    whole = scorer(bed.val)
    for name, fields in FITNESSES.items():
        settings = replace(bed.settings, **fields)
        best, seconds = timed(partial(_best, bed, settings, whole))
        arms[name] = bed.subnet_figures(best[0], seconds)

    seen, unseen = (scorer(part) for part in hold_out(bed.val, 0.5, seed=bed.seed))
    best, seconds = timed(partial(_best, bed, bed.settings, seen))
    arms["val loss, half of val"] = bed.subnet_figures(best[0], seconds)
    finalist = min(best[:_FINALISTS], key=lambda subnet: unseen(subnet).loss)
    arms[f"val loss, half of val, {_FINALISTS} finalists"] = bed.subnet_figures(finalist, seconds)
    gaps = [unseen(s).loss - seen(s).loss for s in (best[0], *bed.random_subnets(_RANDOM))]

    folds, training_s = timed(partial(_Folds, bed, _FOLDS))
    best, seconds = timed(partial(_best, bed, bed.settings, folds))
    arms[f"loss of {_FOLDS} folds"] = bed.subnet_figures(best[0], training_s + seconds)
    return arms, {"flattery": {"winner": gaps[0], "random subnet": float(np.mean(gaps[1:]))}}


def _best(bed: Bed, settings: SearchSettings, scorer: SubnetScorer) -> list[SubnetConfig]:
    """What a search has evaluated, best first."""
    return [outcome.candidate.subnet for outcome in bed.search(settings, scorer)]


class _Folds:
    """Scores a subnet by its mean figures over all images of train and val, each image with a
    supernet that has not seen it.

    Args:
        bed: Its recipe trains the supernets.
        n: Folds, and supernets.
    """

    def __init__(self, bed: Bed, n: int) -> None:
        materials, file = bed.materials, bed.materials.file
        self._scorers = []
        for k in range(n):
            rest, part = fold((materials.train, materials.val), k, n, seed=bed.seed)
            backbone = copy.deepcopy(materials.backbone)
            supernet = Supernet(
                backbone, materials.space, storage=file.supernet.storage, seed=file.study.seed
            ).to(device_of(file))
            train_supernet(
                supernet,
                rest.to(device_of(file)),
                recipe_of(file),
                seed=file.study.seed,
                design=design_of(file),
            )
            scored = part.to(device_of(file))
            self._scorers.append(
                SubnetEvaluator(supernet, scored, batch_size=file.search.batch_size)
            )

    def evaluate_each(
        self, subnets: Sequence[SubnetConfig]
    ) -> Iterator[tuple[int, Evaluation | Exception]]:
        """As `SubnetEvaluator` does."""
        found = [dict(scorer.evaluate_each(subnets)) for scorer in self._scorers]
        for position in range(len(subnets)):
            yield position, _mean([of_fold[position] for of_fold in found])


def _mean(figures: Sequence[Evaluation | Exception]) -> Evaluation | Exception:
    """Over all images; the first error, where there is one."""
    known = []
    for each in figures:
        if isinstance(each, Exception):
            return each
        known.append(each)
    n = sum(each.n_images for each in known)
    return Evaluation(
        top1=sum(each.top1 * each.n_images for each in known) / n,
        loss=sum(each.loss * each.n_images for each in known) / n,
        n_images=n,
        eval_s=sum(each.eval_s for each in known),
    )
