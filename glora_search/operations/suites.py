"""Compare methods on suites of files: VTAB-1k, few-shot sets, domains of ImageNet."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glora_search.bench.recipes import PUBLISHED_EPOCHS, SWEEP_FACTORS
from glora_search.bench.suite_plan import default_reference, make_plan
from glora_search.bench.suites import Base, Suite, domain_suite, few_shot_suite, vtab_suite
from glora_search.operations.recorded_bench import (
    Comparison,
    compare_suite,
)
from glora_search.stages.progress import Progress, Silent
from glora_search.study.examples import load_example
from glora_search.study.reading import read_study_table

BASE_STUDY: Final = "vtab-vit-b16"
"""The example from which suites take all but the data, unless a study is given."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options that every suite takes.

    Args:
        study: A study file, from which all but the section [data] is taken; BASE_STUDY if not
            given. Of its [data] the keys are kept that say how images are prepared.
        overrides: `section.key=value`, of that study.
        methods: Names; all of them if not given.
        seeds: Final runs of each method and task. Where the training images are lists, seed k
            takes list k.
        epochs: Of every method but those that train a supernet: theirs is `supernet.epochs`.
        sweep: Whether each method gets a sweep of its learning rate, or its published one.
        reference: The method to which the others are compared; `lora` if not given and among the
            methods, else the first.
        workers: Runs at a time, on Ray; 0 for one after the other in this process; None for
            `cluster.workers` of the study.
    """

    study: Path | None = None
    overrides: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    seeds: int = 3
    epochs: int = PUBLISHED_EPOCHS
    sweep: bool = True
    reference: str | None = None
    workers: int | None = None

    def base(self, root: Path) -> Base:
        """What all tasks of a suite below `root` share."""
        example = load_example(BASE_STUDY)
        return Base(
            table=tomllib.loads(example) if self.study is None else read_study_table(self.study),
            packaged=self.study is None,
            root=root,
            overrides=self.overrides,
            workers=self.workers,
        )


_DEFAULTS: Final = Asked()


def bench_vtab(
    root: Path,
    *,
    tasks: Sequence[str] | None = None,
    asked: Asked = _DEFAULTS,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare methods on VTAB-1k.

    Args:
        root: The folder that holds the folders of the tasks.
        tasks: Names of `supernet.data.VTAB_CLASSES`; all 19 if not given.
        asked: What may be asked of every suite.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError: An unknown method or task, or a mistake in the study.
        DataError: A list or a file of any task is wrong; before anything trains.
        GLoRASearchError: As in `glora_search.launch`; also where every run failed.
        KeyboardInterrupt: Runs that had ended are recorded; the same call goes on from there.
    """
    return _bench(vtab_suite(asked.base(root), tasks), asked, storage, progress)


def bench_few_shot(
    root: Path,
    *,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    asked: Asked = _DEFAULTS,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare methods on five fine-grained data sets with few images a class.

    Args:
        root: The folder that holds the folders of the data sets.
        datasets: Names of `supernet.data.FEW_SHOT_SETS`; all five if not given.
        shots: Training images a class; 1, 2, 4, 8 and 16 if not given.
        asked: As in `bench_vtab`.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError, GLoRASearchError, KeyboardInterrupt: As in `bench_vtab`.
        DataError: Likewise; also where there are fewer lists than seeds.
    """
    return _bench(few_shot_suite(asked.base(root), datasets, shots), asked, storage, progress)


def bench_domains(
    root: Path,
    *,
    domains: Sequence[str] | None = None,
    asked: Asked = _DEFAULTS,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare methods that are trained on ImageNet's 16 images a class and tested on its domains.

    A method is trained once a seed, and tested on all domains.

    Args:
        root: The folder that holds ImageNet and the domains.
        domains: Names of `supernet.data.DOMAINS`; all five if not given.
        asked: As in `bench_vtab`.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError, DataError, GLoRASearchError, KeyboardInterrupt: As in `bench_few_shot`.
    """
    return _bench(domain_suite(asked.base(root), domains), asked, storage, progress)


def _bench(
    suite: Suite, asked: Asked, storage: str | None, progress: Progress | None
) -> Comparison:
    factors = SWEEP_FACTORS if asked.sweep else (1.0,)
    plan = make_plan(suite, asked.methods, asked.seeds, asked.epochs, factors)
    reference = asked.reference or default_reference(plan.methods)
    return compare_suite(suite, plan, reference, storage, progress or Silent())
