"""The section [supernet] as the network takes it: recipes, and a design."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from glora_search.stages.prepare import param_limits
from glora_search.study.study_file import StudyFile
from search_spaces import NO_LIMITS
from supernet import Design, Recipe

_MOST_WARMUP_EPOCHS: Final = 2


def recipe_of(file: StudyFile) -> Recipe:
    """How the supernet of a study trains."""
    return Recipe(**file.supernet.recipe_fields())


def finetuning_recipe(
    file: StudyFile, *, epochs: int, lr: float, batch_size: int | None = None
) -> Recipe:
    """How a subnet of it is trained on: as the supernet, but shorter and at another rate, and on
    batches of another size if there is one.
    """
    recipe = recipe_of(file)
    return replace(
        recipe,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size or recipe.batch_size,
        warmup_epochs=min(recipe.warmup_epochs, _MOST_WARMUP_EPOCHS),
        # A schedule that ends, or starts, above its peak would be none.
        warmup_lr=min(recipe.warmup_lr, lr),
        min_lr=min(recipe.min_lr, lr / 10),
    )


def design_of(file: StudyFile) -> Design:
    """Which subnets each step of it takes; `budget` draws them within the limits of the search."""
    section = file.supernet
    return Design(
        paths="fair" if section.paths == "fair" else "uniform",
        limits=param_limits(file) if section.paths == "budget" else NO_LIMITS,
        paths_per_step=section.paths_per_step,
        sandwich=section.sandwich,
        noise=section.noise,
        consistency=section.consistency,
        lr_factors={str(kind): factor for kind, factor in section.lr_factors.items()},
        init=section.init,
    )
