"""Compares everything that can be exported after a search: the winner, averages, a soup, others."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, Final

from glora_search.bench.runs import ArmFigures
from glora_search.bench.science.bed import Bed, timed
from glora_search.bench.science.ranking import subnet_recipe, train_alone
from glora_search.bench.science.scale import trained_on_epochs
from search_spaces import SubnetConfig
from supernet.finetuning import finetune, finetune_averaged
from supernet.soup import greedy_soup
from supernet.training import derive_seed

_AVERAGED: Final = (10, 50)
_SOUP: Final = 20
_FINETUNE_EPOCHS: Final = 20
_FINETUNE_LR: Final = 3e-3
_RUN_RATE: Final = 2.0
"""Times the supernet's peak rate."""

_ORACLE: Final = 10


def compare_exports(bed: Bed) -> dict[str, ArmFigures]:
    """Those of `compare_winner`, and the winner trained on, the mean of several trainings."""
    found = compare_winner(bed)
    return {**found, "winner, trained on": _trained_on(bed, found["winner"].seconds)}


def _trained_on(bed: Bed, search_s: float) -> ArmFigures:
    section = bed.materials.file.supernet
    runs, epochs = trained_on_epochs(section.epochs)
    recipe = dataclasses.replace(
        subnet_recipe(bed, epochs=epochs, lr=_RUN_RATE * section.lr),
        warmup_epochs=min(2, epochs // 2),
    )
    seeds = [derive_seed(bed.seed, "run", run) for run in range(runs)]
    train: Any = bed.materials.train
    tuned, seconds = timed(
        lambda: finetune_averaged(bed.supernet, bed.winner, train, bed.val, recipe, seeds=seeds)
    )
    n_params = bed.space.n_params(bed.winner)
    return bed.figures(tuned.supernet.merge(bed.winner), n_params, search_s + seconds)


def compare_winner(bed: Bed) -> dict[str, ArmFigures]:
    """Figures of the winner, of an average, and of a random subnet: what a design is judged by."""
    evolved, search_s = timed(lambda: bed.evolved)
    subnets = [outcome.candidate.subnet for outcome in evolved]
    average = bed.supernet.merge_average(subnets[: _AVERAGED[0]])
    return {
        "winner": bed.subnet_figures(subnets[0], search_s),
        f"average of the {_AVERAGED[0]} best": bed.figures(average, None, search_s),
        "random subnet": bed.subnet_figures(bed.random_subnets(1)[0]),
    }


def compare_ends(bed: Bed, *, alone_epochs: int, alone_lr: float) -> dict[str, ArmFigures]:
    """Figures of the winner and of its rivals, all from one supernet and one search.

    Args:
        bed: Trained.
        alone_epochs: Of the winner's training from the start.
        alone_lr: Of it.
    """
    evolved, search_s = timed(lambda: bed.evolved)
    subnets = [outcome.candidate.subnet for outcome in evolved]
    winner = subnets[0]
    arms = {
        "winner": bed.subnet_figures(winner, search_s),
        "random subnet": bed.subnet_figures(bed.random_subnets(1)[0]),
        "layers shuffled": bed.subnet_figures(shuffled(winner, random.Random(bed.seed))),
        "median of all evaluated": bed.subnet_figures(subnets[len(subnets) // 2], search_s),
        "largest subnet": bed.subnet_figures(bed.space.max_subnet()),
    }
    for n in _AVERAGED:
        arms[f"average of the {n} best"] = bed.figures(
            bed.supernet.merge_average(subnets[:n]), None, search_s
        )
        arms[f"average of {n} random"] = bed.figures(
            bed.supernet.merge_average(bed.random_subnets(n)), None
        )
    kept, soup_s = timed(lambda: greedy_soup(bed.supernet, subnets[:_SOUP], bed.val))
    arms[f"greedy soup of {_SOUP}"] = bed.figures(
        bed.supernet.merge_average(kept), None, search_s + soup_s
    )
    arms["winner, fine-tuned"] = _finetuned(bed, winner, search_s)
    arms["winner, trained on"] = _trained_on(bed, search_s)
    recipe = subnet_recipe(bed, epochs=alone_epochs, lr=alone_lr)
    alone, alone_s = timed(lambda: train_alone(bed, winner, recipe))
    arms["winner, trained alone"] = bed.figures(
        alone.merge(winner), bed.space.n_params(winner), search_s + alone_s
    )
    best = [bed.subnet_figures(subnet) for subnet in subnets[:_ORACLE]]
    oracle = max(best, key=lambda figures: figures.test_top1)
    arms[f"oracle: best by test of the {_ORACLE} best"] = oracle
    return arms


def _finetuned(bed: Bed, subnet: SubnetConfig, search_s: float) -> ArmFigures:
    recipe = dataclasses.replace(
        subnet_recipe(bed, epochs=_FINETUNE_EPOCHS, lr=_FINETUNE_LR), warmup_epochs=2
    )
    train: Any = bed.materials.train
    tuned, seconds = timed(
        lambda: finetune(bed.supernet, subnet, train, bed.val, recipe, seed=bed.seed)
    )
    return bed.figures(tuned.supernet.merge(subnet), bed.space.n_params(subnet), search_s + seconds)


def shuffled(subnet: SubnetConfig, rng: random.Random) -> SubnetConfig:
    """The same layer configurations in other blocks: layers of one kind exchange theirs."""
    kinds: dict[str, list[str]] = {}
    for name in subnet.layers:
        kinds.setdefault(name.partition(".")[2].partition(".")[2], []).append(name)
    layers = dict(subnet.layers)
    for names in kinds.values():
        others = rng.sample(names, len(names))
        layers |= {name: subnet.layers[other] for name, other in zip(names, others, strict=True)}
    return SubnetConfig(layers)
