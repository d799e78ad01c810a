"""What a worker does: train a supernet as `launch` would, and score random subnets on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch

from glora_search.cluster.packing import pack_split, unpack_split
from glora_search.cluster.training_worker import TrainingPackage
from glora_search.evaluating.results import worker_name
from glora_search.operations.sweeping.recipes import rungs, scored_epochs
from glora_search.operations.sweeping.report import Report
from glora_search.stages.prepare import Materials, param_limits
from glora_search.stages.recipes import design_of, recipe_of
from glora_search.study.errors import one_line
from search_spaces import GLoRASearchError, SubnetConfig
from supernet import EpochEnd, Precision, Split, Supernet, evaluate_subnets, train_supernet
from supernet.evaluation import LOSS_DIGITS
from supernet.training import derive_seed


@dataclass(frozen=True, kw_only=True)
class TrialPackage:
    """What every trial of a sweep needs, sent once.

    Args:
        training: The untrained supernet, the training split, and the recipe of the study.
        val: The validation split, packed.
        subnets: Those that are scored.
        batch_size: Images a forward of an evaluation.
        precision: Of an evaluation.
        rungs: The percentages of its epochs at which a trial is scored, the last one 100.
    """

    training: TrainingPackage
    val: Split | dict[str, Any]
    subnets: list[SubnetConfig]
    batch_size: int
    precision: Precision
    rungs: list[float]

    @classmethod
    def of(cls, materials: Materials, *, on_gpu: bool) -> TrialPackage:
        """Pack the materials of a study, whose backbone becomes a supernet's."""
        file = materials.file
        supernet = Supernet(
            materials.backbone,
            materials.space,
            storage=file.supernet.storage,
            seed=file.study.seed,
        )
        training = TrainingPackage.of(
            supernet,
            materials.architecture,
            materials.train,
            drop_path=file.supernet.drop_path,
            recipe=recipe_of(file),
            design=design_of(file),
            seed=file.study.seed,
            identity={},
            every_s=0.0,
            threads=file.sweep.cpus_per_trial,
            on_gpu=on_gpu,
        )
        return cls(
            training=training,
            val=pack_split(materials.val),
            subnets=scored_subnets(materials),
            batch_size=file.search.batch_size,
            precision=file.search.precision,
            rungs=rungs(file.sweep),
        )

    def train(self, recipe: Mapping[str, Any], report: Callable[[Report], None]) -> None:
        """Train with the study's recipe but for what `recipe` says, and report at each rung; what
        goes wrong is reported as well.
        """
        training = self.training
        device = torch.device("cuda" if training.on_gpu else "cpu")
        val = unpack_split(self.val).to(device)
        started, worker = time.monotonic(), worker_name()
        changed = replace(training.recipe, **recipe)
        percent_at = scored_epochs(changed.epochs, self.rungs)
        supernet = training.unpack(device)

        def score(end: EpochEnd) -> None:
            if end.epoch not in percent_at:
                return
            found = evaluate_subnets(
                supernet, self.subnets, val, batch_size=self.batch_size, precision=self.precision
            )
            report(
                Report(
                    percent=percent_at[end.epoch],
                    epochs=end.epoch,
                    loss=round(fmean(each.loss for each in found), LOSS_DIGITS),
                    top1=fmean(each.top1 for each in found),
                    train_s=time.monotonic() - started,
                    worker=worker,
                )
            )

        try:
            train_supernet(
                supernet,
                unpack_split(training.split).to(device),
                changed,
                seed=training.seed,
                design=training.design,
                on_epoch=score,
            )
        except GLoRASearchError as error:  # the same recipe would fail again
            report(
                Report(
                    train_s=time.monotonic() - started,
                    worker=worker,
                    error_type=type(error).__name__,
                    error=one_line(error),
                )
            )


def scored_subnets(materials: Materials) -> list[SubnetConfig]:
    """The subnets by which every trial is scored: uniform within the study's limits, by its
    seed.
    """
    file = materials.file
    rng = random.Random(derive_seed(file.study.seed, "sweep"))
    return [materials.space.sample(rng, param_limits(file)) for _ in range(file.sweep.subnets)]
