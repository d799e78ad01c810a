"""Whether inherited weights rank subnets as training them alone does: Kendall's tau.

Subnets of about equal size are trained alone, each with the same seed and recipe. Their val losses
are compared with the ones that they inherit from the supernet, from the supernet untrained, and
from one after a tenth of its training.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Sequence
from typing import Any, Final

from glora_search.bench.recipes import BATCH_SIZE
from glora_search.bench.runs import ArmFigures
from glora_search.bench.science.bed import Bed
from glora_search.stages.prepare import device_of, param_limits
from glora_search.stages.recipes import design_of, recipe_of
from search_spaces import ParamLimits, SubnetConfig
from supernet import Recipe, SubnetEvaluator, Supernet, train_network, train_supernet

_NARROW: Final = 0.9
"""Subnets have from this share of max_params on."""

_SHORT: Final = 0.1


def compare_ranking(
    bed: Bed, *, subnets: int, epochs: int, lr: float
) -> tuple[dict[str, ArmFigures], dict[str, Any]]:
    """Val losses of the same subnets: trained alone, inherited, from two worse supernets.

    Args:
        bed: Its supernet is the one that is judged.
        subnets: How many.
        epochs: Of a training alone.
        lr: Of a training alone.

    Returns:
        No arms; `alone`, `inherited`, `untrained` and `tenth`: losses in one order.
    """
    file = bed.materials.file
    most = param_limits(file).max_params or bed.space.n_params(bed.space.max_subnet())
    limits = ParamLimits(int(_NARROW * most), most)
    draws = random.Random(f"ranking/{bed.seed}")
    chosen = [bed.space.sample(draws, limits) for _ in range(subnets)]
    recipe = subnet_recipe(bed, epochs=epochs, lr=lr)
    tenth = dataclasses.replace(
        recipe_of(file), epochs=max(1, round(_SHORT * file.supernet.epochs))
    )
    short = fresh_supernet(bed)
    untrained = _losses(bed, short, chosen)
    train_supernet(
        short,
        bed.materials.train.to(device_of(file)),
        tenth,
        seed=bed.seed,
        design=design_of(file),
    )
    return {}, {
        "alone": [_alone(bed, subnet, recipe) for subnet in chosen],
        "inherited": bed.losses(chosen),
        "untrained": untrained,
        "tenth": _losses(bed, short, chosen),
        "params": [bed.space.n_params(subnet) for subnet in chosen],
    }


def fresh_supernet(bed: Bed) -> Supernet:
    """An untrained one over the same backbone."""
    file = bed.materials.file
    supernet = Supernet(
        copy.deepcopy(bed.materials.backbone),
        bed.space,
        storage=file.supernet.storage,
        seed=bed.seed,
    )
    return supernet.to(device_of(file))


def subnet_recipe(bed: Bed, *, epochs: int, lr: float) -> Recipe:
    """How one subnet trains: as the supernet, at a rate and on batches of its own."""
    recipe = recipe_of(bed.materials.file)
    return dataclasses.replace(
        recipe, epochs=epochs, lr=lr, min_lr=min(recipe.min_lr, lr / 10), batch_size=BATCH_SIZE
    )


def train_alone(bed: Bed, subnet: SubnetConfig, recipe: Recipe) -> Supernet:
    """A supernet of which one subnet was trained, from the start."""
    supernet = fresh_supernet(bed)
    supernet.set_active_subnet(subnet)
    active = {id(p) for p in supernet.active_parameters([subnet])}
    for _, parameter in supernet.trainable_parameters():
        parameter.requires_grad_(id(parameter) in active)
    train = bed.materials.train.to(device_of(bed.materials.file))
    train_network(supernet, train, recipe, seed=bed.seed)
    return supernet


def _alone(bed: Bed, subnet: SubnetConfig, recipe: Recipe) -> float:
    return _losses(bed, train_alone(bed, subnet, recipe), [subnet])[0]


def _losses(bed: Bed, supernet: Supernet, subnets: Sequence[SubnetConfig]) -> list[float]:
    found = dict(SubnetEvaluator(supernet, bed.val, batch_size=256).evaluate_each(subnets))
    results = [found[position] for position in range(len(subnets))]
    return [float("inf") if isinstance(r, Exception) else r.loss for r in results]
