"""Compare methods on a study's data, or on the offline suite."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from glora_search.bench.plan import BenchPlan, PowerPlan
from glora_search.bench.power import SuitePower, suite_power
from glora_search.bench.recipes import (
    OFFLINE_EPOCHS,
    PUBLISHED_EPOCHS,
    QUICK_EPOCHS,
    QUICK_FACTORS,
    QUICK_SUPERNET_EPOCHS,
    SWEEP_FACTORS,
)
from glora_search.bench.suite_plan import default_reference, make_plan
from glora_search.bench.suites import Suite, offline_suite, suite_of
from glora_search.operations.recorded_bench import (
    Comparison,
    compare_suite,
    run_all,
)
from glora_search.stages.progress import Progress, Silent
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import load_study_file
from glora_search.study.study_file import StudyFile
from search_spaces import GLoRASearchError


def compare(
    study: StudyFile | Path | str,
    *,
    methods: Sequence[str] | None = None,
    seeds: int = 3,
    epochs: int = PUBLISHED_EPOCHS,
    reference: str | None = None,
    sweep: bool = True,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train methods on a study's data, and compare them on its test split.

    Args:
        study: A study file's path, or what `load_study_file` made of it. `search.max_params` is the
            number of parameters to which methods with a size are matched; `supernet.epochs` are
            those of the supernet.
        methods: Names of `glora_search.bench.recipes.PUBLISHED_LR`; all of them if not given.
        seeds: Final runs of each method; a seed draws the data anew, where its source draws at all.
        epochs: Of every method but those that train a supernet.
        reference: The method to which the others are compared; the first one if not given.
        sweep: Whether each method gets a sweep of its learning rate, or its published one.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError: An unknown method.
        GLoRASearchError: As in `glora_search.launch`; also where every run failed.
        KeyboardInterrupt: Runs that had ended are recorded; the same call goes on from there.
    """
    file = study if isinstance(study, StudyFile) else load_study_file(Path(study))
    suite = suite_of(file)
    plan = make_plan(suite, methods, seeds, epochs, SWEEP_FACTORS if sweep else (1.0,))
    return compare_suite(suite, plan, reference or plan.methods[0], storage, progress or Silent())


def bench_offline(
    *,
    methods: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: int | None = None,
    quick: bool = False,
    directory: Path,
    workers: int = 2,
    reference: str | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare methods on the offline suite, which needs no download.

    Args:
        methods: Names; all of them if not given.
        tasks: Names of `OFFLINE_TASKS`; all of them, or in quick mode QUICK_TASKS, if not given.
        seeds: Final runs of each method and task; 5, or in quick mode 3, if not given.
        quick: Fewer tasks, seeds, learning rates and epochs: a first look.
        directory: Where the backbone and the supernets are kept.
        workers: Runs at a time, on Ray; 0 for one after the other in this process.
        reference: As in `compare`; `lora` if not given and among the methods.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError: An unknown method or task.
        GLoRASearchError, KeyboardInterrupt: As in `compare`.
    """
    suite, plan = _offline(methods, tasks, seeds, quick, directory, workers)
    reference = reference or default_reference(plan.methods)
    return compare_suite(suite, plan, reference, storage, progress or Silent())


def offline_power(
    *,
    pair: Sequence[str] = ("lora", "ssf"),
    tasks: Sequence[str] | None = None,
    splits: int = 4,
    seeds: int = 2,
    quick: bool = False,
    directory: Path,
    workers: int = 2,
    storage: str | None = None,
    progress: Progress | None = None,
) -> SuitePower:
    """What differences the offline suite can find: two methods, trained on several draws of the
    data with several seeds each.

    Args:
        pair: Two methods.
        tasks: As in `bench_offline`.
        splits: Draws of the data, at least two.
        seeds: Trainings on each draw, at least two.
        quick: With the epochs and tasks of the quick mode.
        directory: As in `bench_offline`.
        workers: As in `bench_offline`.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError: Not two methods, or fewer than two draws or seeds.
        GLoRASearchError, KeyboardInterrupt: As in `compare`; a run that failed is an error.
    """
    if len(pair) != 2 or splits < 2 or seeds < 2:
        raise StudyFileError("power needs two methods, at least two splits and at least two seeds")
    suite, plan = _offline(pair, tasks, seeds, quick, directory, workers)
    power = PowerPlan(plan=plan, splits=splits)
    with ExitStack() as stack:
        done, _ = run_all(suite, power, storage, progress or Silent(), stack)
    runs = [done[run.key] for run in power.finals(done)]
    if failed := [result for result in runs if result.failed]:
        raise GLoRASearchError(f"{len(failed)} runs failed; the last error: {failed[-1].error}")
    return suite_power(runs, plan.tasks, pair)


def _offline(
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    seeds: int | None,
    quick: bool,
    directory: Path,
    workers: int,
) -> tuple[Suite, BenchPlan]:
    """The offline suite and its plan."""
    keys = {"epochs": QUICK_SUPERNET_EPOCHS} if quick else None
    suite = offline_suite(tasks, directory, workers=workers, quick=quick, supernet=keys)
    plan = make_plan(
        suite,
        methods,
        seeds or (3 if quick else 5),
        QUICK_EPOCHS if quick else OFFLINE_EPOCHS,
        QUICK_FACTORS if quick else SWEEP_FACTORS,
    )
    return suite, plan
