"""The search stage: from the trained supernet to outcomes and finalists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from glora_search.evaluating import Evaluator
from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.evaluating.package import EvaluationPackage
from glora_search.proposing import SearchSettings, SteadyStateProposer, make_proposer
from glora_search.recording import StudyRecord
from glora_search.stages.held_out import search_splits
from glora_search.stages.prepare import Materials, device_of, param_limits
from glora_search.stages.progress import Bar, Progress
from glora_search.stages.search_loop import LoopSettings, run_search, run_steady_search
from glora_search.stages.warm_start import recorded_sensitivity
from glora_search.study.finalists import (
    ATTRIBUTE,
    Scores,
    from_attributes,
    score_finalists,
    to_attribute,
)
from glora_search.study.fronts import Point, add_to_front, point
from glora_search.study.objectives import CALIBRATED_LOSS, Objectives
from glora_search.study.outcomes import Outcome
from glora_search.study.study_file import StudyFile
from search_spaces import SubnetConfig
from supernet import Precision, Split, SubnetEvaluator, Supernet
from supernet.evaluation import autocast_dtype

if TYPE_CHECKING:
    from glora_search.evaluating.ray_actors import RayWorkers


def search_settings(file: StudyFile) -> SearchSettings:
    """The section [search], as proposers take it."""
    section = file.search
    return SearchSettings(
        sampler=section.sampler,
        operators=section.operators,
        mode=section.mode,
        objectives=section.optimised,
        population=section.population,
        generations=section.generations,
        parents=section.parents,
        mutations=section.mutations,
        crossovers=section.crossovers,
        mutation_probability=section.mutation_probability,
        limits=param_limits(file),
        surrogate=section.surrogate,
        proposals=section.proposals,
        diversity=section.diversity,
        size_price=section.size_price,
        warm_start=section.warm_start,
    )


def search_supernet(
    record: StudyRecord,
    materials: Materials,
    supernet: Supernet,
    workers: RayWorkers | None,
    progress: Progress,
) -> list[Outcome]:
    """Evaluate what a study lacks, in the mode of its file; see `run_search` and
    `run_steady_search`. Where images are held out, the finalists are then scored on them.

    Args:
        record: The study, held by this process.
        materials: Of the study.
        supernet: Trained.
        workers: Where candidates are evaluated; None for this process.
        progress: Where to report to.
    """
    outcomes = _searched(record, materials, supernet, workers, progress)
    if materials.file.search.holdout:
        rescore_finalists(record, record.trials(), materials, supernet, progress)
    return outcomes


def _searched(
    record: StudyRecord,
    materials: Materials,
    supernet: Supernet,
    workers: RayWorkers | None,
    progress: Progress,
) -> list[Outcome]:
    file = materials.file
    settings = search_settings(file)
    sensitivity = recorded_sensitivity(record, materials, supernet, progress)
    loop = LoopSettings(
        max_failures=file.search.max_failures,
        flush_every=file.search.flush_every,
        flush_s=file.search.flush_s,
    )
    with (
        closing(_evaluator(materials, supernet, workers)) as evaluator,
        progress.bar("searching", settings.n_candidates) as bar,
    ):
        space, seed = materials.space, file.study.seed
        best = _BestSoFar(settings.objectives, bar)
        # Whether the same seed would find the same again, on any number of workers.
        record.set_attribute("reproducible", settings.mode == "generational")
        if settings.mode == "steady-state":
            children = SteadyStateProposer(space, settings, seed, sensitivity=sensitivity)
            return run_steady_search(record, children, evaluator, loop, on_outcome=best)
        proposer = make_proposer(space, settings, seed, sensitivity=sensitivity)
        return run_search(record, proposer, evaluator, settings, loop, on_outcome=best)


def rescore_finalists(
    record: StudyRecord,
    trials: Mapping[int, Outcome],
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
) -> None:
    """Score the best of a finished search in float32, on the images that were held out if there are
    such, unless that has been done.

    Args:
        record: The study, held by this process.
        trials: All of its trials, by Optuna's number.
        materials: Of the study.
        supernet: Trained.
        progress: Where to report to.
    """
    if from_attributes(record.attributes):
        return
    splits = search_splits(materials)
    evaluator = exact_evaluator(materials, supernet, splits.judged)
    where = "in fp32" if splits.held_out is None else f"on {splits.held_out} held-out images"

    def score(subnets: Sequence[SubnetConfig]) -> Scores:
        with progress.bar(f"scoring finalists {where}", len(subnets)) as bar:
            results = evaluator.evaluate_each(subnets)
            for done, (position, found) in enumerate(results, start=1):
                bar.update(done)
                yield position, found

    finalists = score_finalists(
        trials,
        record.objectives,
        materials.file.search.finalists,
        score,
        held_out=splits.held_out,
    )
    record.set_attribute(ATTRIBUTE, to_attribute(finalists))


def exact_evaluator(materials: Materials, supernet: Supernet, split: Split) -> SubnetEvaluator:
    """Scores subnets in float32 in this process, where the supernet is, as the study's search
    does.
    """
    return SubnetEvaluator(
        supernet,
        split.to(next(supernet.parameters()).device),
        batch_size=materials.file.search.batch_size,
        calibrated=materials.file.search.fitness == CALIBRATED_LOSS.name,
    )


class _BestSoFar:
    """Counts outcomes, and shows the best of them on a bar; of two objectives also how many are on
    the front.
    """

    def __init__(self, objectives: Objectives, bar: Bar) -> None:
        self._objectives, self._bar = objectives, bar
        self._n = 0
        self._best: Outcome | None = None
        self._front: list[Point] = []

    def __call__(self, outcome: Outcome) -> None:
        self._n += 1
        if self._best is None or self._objectives.rank(outcome) < self._objectives.rank(self._best):
            self._best = outcome
        loss, top1 = self._best.loss, self._best.top1
        shown = "" if loss is None else f"best val loss {loss:.4f}, top-1 {top1:.3f}"
        if self._objectives.are_two:
            add_to_front(self._front, point(outcome, self._objectives))
            shown = f"front of {len(self._front)}, {shown}"
        self._bar.update(self._n, shown)


def _evaluator(materials: Materials, supernet: Supernet, workers: RayWorkers | None) -> Evaluator:
    file = materials.file
    package = EvaluationPackage.of(
        supernet,
        materials.architecture,
        search_splits(materials).seen,
        batch_size=file.search.batch_size,
        precision=file.search.precision,
        device=_evaluation_device(file),
        threads=file.cluster.cpus_per_worker,
        calibrated=file.search.fitness == CALIBRATED_LOSS.name,
    )
    return InProcessEvaluator(package) if workers is None else workers.evaluator(package)


def search_precision(file: StudyFile) -> Precision:
    """The precision of the study's evaluations; `auto` is resolved for the device that they use."""
    device = torch.device(_evaluation_device(file))
    return "fp32" if autocast_dtype(device, file.search.precision) is None else "bf16"


def _evaluation_device(file: StudyFile) -> str:
    if not file.cluster.workers:
        return str(device_of(file))
    return "cuda" if file.cluster.gpus_per_worker else "cpu"
