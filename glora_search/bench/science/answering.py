"""Answers a question: trains or loads the supernet of a run, and asks it."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Final

from glora_search.bench.runs import ArmFigures, Run, RunResult
from glora_search.bench.science.bed import Bed
from glora_search.bench.science.ends import compare_ends, compare_exports, compare_winner
from glora_search.bench.science.fitness import compare_fitness
from glora_search.bench.science.fronts import compare_fronts
from glora_search.bench.science.ranking import compare_ranking
from glora_search.bench.science.samplers import compare_samplers
from glora_search.bench.searched import as_run
from glora_search.stages.prepare import Materials
from glora_search.stages.progress import Silent
from glora_search.stages.training import train_or_load_supernet
from supernet import Split

ALONE_EPOCHS: Final = 20
ALONE_LR: Final = 5e-3
"""Of a subnet that is trained alone: what the suite's quick mode gives to methods without search,
and the rate that its sweeps choose for GLoRA."""


def answer(run: Run, materials: Materials, test: Split) -> RunResult:
    """The answer to `run.question`.

    Args:
        run: Its learning rate and epochs are the supernet's.
        materials: Of the run's task and draw of the data.
        test: The test split.
    """
    materials = as_run(run, materials)
    since = time.process_time()
    taken = dataclasses.replace(materials, backbone=copy.deepcopy(materials.backbone))
    supernet = train_or_load_supernet(taken, Silent())
    train_s = time.process_time() - since
    bed = Bed(materials=materials, supernet=supernet, test=test, seed=run.seed)
    arms, facts = _asked(bed, run.question)
    first = next(iter(arms.values()), None)
    return RunResult(
        run=run,
        n_params=None if first is None else first.n_params,
        val_loss=0.0 if first is None else first.val_loss,
        val_top1=None if first is None else first.val_top1,
        test_loss=None if first is None else first.test_loss,
        test_top1=None if first is None else first.test_top1,
        calibrated_loss=None if first is None else first.calibrated_loss,
        n_test=len(test),
        arms=arms,
        facts=facts,
        train_s=train_s,
        merges=True,
    )


def _asked(bed: Bed, question: str) -> tuple[Mapping[str, ArmFigures], Mapping[str, Any]]:
    """The answer to a question: its name, and after a colon its size where it has one."""
    name, _, size = question.partition(":")
    match name:
        case "winner":
            return compare_winner(bed), {}
        case "exports":
            return compare_exports(bed), {}
        case "ends":
            return compare_ends(bed, alone_epochs=ALONE_EPOCHS, alone_lr=ALONE_LR), {}
        case "samplers":
            return compare_samplers(bed)
        case "fitness":
            return compare_fitness(bed)
        case "fronts":
            return {}, compare_fronts(bed)
        case "ranking":
            return compare_ranking(bed, subnets=int(size), epochs=ALONE_EPOCHS, lr=ALONE_LR)
    raise ValueError(f"no question {question!r}")
