"""The section [supernet] as the network takes it: a recipe, and a design."""

from __future__ import annotations

from glora_search.stages.prepare import param_limits
from glora_search.study.study_file import StudyFile
from search_spaces import NO_LIMITS
from supernet import Design, Recipe


def recipe_of(file: StudyFile) -> Recipe:
    """How the supernet of a study trains."""
    return Recipe(**file.supernet.recipe_fields())


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
