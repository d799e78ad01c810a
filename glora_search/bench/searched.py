"""The two methods of the bench that need a supernet: the searched winner, and a random subnet.

Both take the same trained supernet, so their difference is what the search is worth. The supernet
is kept below the study's directory, as that of a launch is.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final

from torch import nn

from glora_search.bench.memory import training_bytes
from glora_search.bench.runs import Run
from glora_search.evaluating.results import score_run, worker_name
from glora_search.proposing import Proposer, SearchSettings, make_proposer
from glora_search.stages.held_out import search_splits
from glora_search.stages.prepare import Materials, device_of, param_limits
from glora_search.stages.progress import Silent
from glora_search.stages.searching import exact_evaluator, search_settings
from glora_search.stages.training import train_or_load_supernet
from glora_search.stages.warm_start import measured_sensitivity
from glora_search.study.finalists import score_finalists, winner_of
from glora_search.study.outcomes import Outcome
from search_spaces import GLoRASearchError, SubnetConfig
from supernet import SubnetEvaluator, Supernet

SEARCHED: Final = ("glora-search", "glora-random")
_SWEEP_SUBNETS: Final = 16


def search_winner(run: Run, materials: Materials) -> tuple[nn.Module, int, int]:
    """The merged subnet that the method picks, its trainable scalars, and the bytes of a training
    step of the supernet with it.

    A sweep run picks the median of a few random subnets by val loss: it judges the supernet, and a
    search would cost more than its training.

    Args:
        run: Its learning rate and epochs are the supernet's.
        materials: Of the run's task and seed.
    """
    materials = as_run(run, materials)
    file = materials.file
    supernet = train_or_load_supernet(materials, Silent())
    subnet = _picked(run, materials, supernet)
    supernet.set_active_subnet(subnet)
    batch = next(iter(materials.train.to(device_of(file)).batches(file.supernet.batch_size)))
    memory_bytes = training_bytes(supernet, *batch)
    return supernet.merge(subnet), materials.space.n_params(subnet), memory_bytes


def as_run(run: Run, materials: Materials) -> Materials:
    """The materials with the run's learning rate, epochs and seed in the study file."""
    file = materials.file
    section = file.supernet.model_copy(
        update={
            "lr": run.lr,
            "epochs": run.epochs or file.supernet.epochs,
            "min_lr": min(file.supernet.min_lr, run.lr / 10),
        }
    )
    study = file.study.model_copy(update={"seed": run.seed})
    changed = file.model_copy(update={"supernet": section, "study": study})
    return dataclasses.replace(materials, file=changed)


def _picked(run: Run, materials: Materials, supernet: Supernet) -> SubnetConfig:
    space, limits = materials.space, param_limits(materials.file)
    if run.role == "final" and run.method == "glora-random":
        return space.sample(random.Random(f"bench/{run.seed}"), limits)
    if run.role == "sweep":
        evaluator = exact_evaluator(materials, supernet, materials.val)
        draws = random.Random("bench/sweep")
        subnets = [space.sample(draws, limits) for _ in range(_SWEEP_SUBNETS)]
        losses = {
            position: found.loss
            for position, found in evaluator.evaluate_each(subnets)
            if not isinstance(found, Exception)
        }
        ranked = sorted(losses, key=lambda position: losses[position])
        return subnets[ranked[len(ranked) // 2]]
    settings = search_settings(materials.file)
    proposer = make_proposer(
        space, settings, run.seed, sensitivity=measured_sensitivity(materials, supernet)
    )
    splits = search_splits(materials)
    outcomes = _evolve(proposer, settings, exact_evaluator(materials, supernet, splits.seen))
    best = min(outcomes, key=settings.objectives.rank)
    if best.failed:
        raise GLoRASearchError(f"every candidate failed; the last error: {best.error}")
    if splits.held_out is None:
        return best.candidate.subnet
    trials = dict(enumerate(outcomes))
    judge = exact_evaluator(materials, supernet, splits.judged)
    n = materials.file.search.finalists
    finalists = score_finalists(trials, settings.objectives, n, judge.evaluate_each)
    winner = winner_of(trials, settings.objectives, finalists)
    assert winner is not None, "not all of them failed"
    return trials[winner].candidate.subnet


def _evolve(
    proposer: Proposer, settings: SearchSettings, evaluator: SubnetEvaluator
) -> list[Outcome]:
    """A search in memory: the proposers and the evaluator of a launch, without its database."""
    history: list[Outcome] = []
    for generation in range(settings.generations + 1):
        candidates = proposer.propose(generation, history)
        results = score_run(evaluator, [candidate.subnet for candidate in candidates])
        history += [
            result.outcome(candidates[result.position], worker_name()) for result in results
        ]
    return history
