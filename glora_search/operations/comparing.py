"""Compare methods on a study's data, or on the tasks of a suite: runs, recorded and resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glora_search.bench.plan import BenchPlan
from glora_search.bench.power import SuitePower, suite_power
from glora_search.bench.recipes import (
    OFFLINE_EPOCHS,
    PUBLISHED_EPOCHS,
    PUBLISHED_LR,
    QUICK_EPOCHS,
    QUICK_FACTORS,
    QUICK_SUPERNET_EPOCHS,
    SWEEP_FACTORS,
    sweep_rates,
)
from glora_search.bench.runs import Run, RunResult
from glora_search.bench.schedule import Ready, run_here, run_on_ray
from glora_search.bench.table import Row, comparison
from glora_search.recording import Database
from glora_search.recording.storage_url import driver_url
from glora_search.stages.prepare import check_fingerprints, prepare
from glora_search.stages.progress import Bar, Progress, Silent
from glora_search.stages.provenance import machine, versions
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import load_study_file
from glora_search.study.study_file import StudyFile
from search_spaces import GLoRASearchError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison that has ended.

    Args:
        name: Of the study, or of the suite.
        tasks: Names.
        reference: The method to which the others are compared.
        rows: One a method.
        results: Of all final runs.
        versions: That the results depend on.
        machine: Likewise.
    """

    name: str
    tasks: tuple[str, ...]
    reference: str
    rows: list[Row]
    results: list[RunResult]
    versions: dict[str, str]
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For programs: the rows, and every final run."""
        return {
            "name": self.name,
            "tasks": list(self.tasks),
            "reference": self.reference,
            "rows": [row.to_json() for row in self.rows],
            "runs": [result.to_json() for result in self.results],
            "versions": self.versions,
            "machine": self.machine,
        }


Doer = Callable[[Ready, Callable[[], None]], Iterator[RunResult]]
"""Does runs: given those that are ready, and what to call now and then while it waits."""


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
    files = {file.study.name: file}
    methods = tuple(methods or PUBLISHED_LR)
    plan = _plan(files, methods, seeds, epochs, SWEEP_FACTORS if sweep else (1.0,), reference)
    return compare_tasks(file.study.name, files, plan, reference, storage, progress or Silent())


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
        seeds: Final runs of each method and task; 5, or in quick mode 2, if not given.
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
    name, files, plan, reference = _offline(
        methods, tasks, seeds, quick, directory, workers, reference
    )
    return compare_tasks(name, files, plan, reference, storage, progress or Silent())


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
    name, files, plan, _ = _offline(pair, tasks, seeds, quick, directory, workers, pair[0])
    progress = progress or Silent()
    ready = lambda done: (  # noqa: E731
        plan.sweeps(done) or [r for r in plan.power_runs(done, splits) if r.key not in done]
    )
    n_runs = plan.n_runs + (splits - 1) * len(plan.tasks) * len(pair) * seeds
    with ExitStack() as stack:
        done, _ = _run_all(name, files, ready, n_runs, storage, progress, stack)
    runs = [done[run.key] for run in plan.power_runs(done, splits)]
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
    reference: str | None,
) -> tuple[str, dict[str, StudyFile], BenchPlan, str]:
    """Name, studies, plan and reference of the offline suite."""
    from glora_search.bench.suites import OFFLINE_TASKS, QUICK_TASKS, offline_suite

    methods = tuple(methods or PUBLISHED_LR)
    tasks = tuple(tasks or (QUICK_TASKS if quick else OFFLINE_TASKS))
    files = offline_suite(
        tasks, directory, workers=workers, supernet_epochs=QUICK_SUPERNET_EPOCHS if quick else None
    )
    check_methods(methods)
    reference = reference or ("lora" if "lora" in methods else methods[0])
    plan = _plan(
        files,
        methods,
        seeds or (2 if quick else 5),
        QUICK_EPOCHS if quick else OFFLINE_EPOCHS,
        QUICK_FACTORS if quick else SWEEP_FACTORS,
        reference,
    )
    return "offline-quick" if quick else "offline", files, plan, reference


def _plan(
    files: Mapping[str, StudyFile],
    methods: Sequence[str],
    seeds: int,
    epochs: int,
    factors: Sequence[float],
    reference: str | None,
) -> BenchPlan:
    check_methods([*methods])
    check_methods([reference or methods[0]])
    file = next(iter(files.values()))
    return BenchPlan(
        tasks=tuple(files),
        methods=tuple(methods),
        seeds=seeds,
        lrs={m: sweep_rates(m, factors) for m in methods},
        epochs={m: file.supernet.epochs if m.startswith("glora-") else epochs for m in methods},
        studies={task: study_digest(each) for task, each in files.items()},
    )


def compare_tasks(
    name: str,
    files: Mapping[str, StudyFile],
    plan: BenchPlan,
    reference: str | None,
    storage: str | None,
    progress: Progress,
    *,
    do: Doer | None = None,
) -> Comparison:
    """Do the runs of a plan that are not recorded yet, and compare all.

    Args:
        name: Of the record: that of the study, or of the suite.
        files: Task to its study, all with the same backbone and [cluster].
        plan: Which runs.
        reference: As in `compare`.
        storage: As in `compare`.
        progress: As in `compare`.
        do: Does the runs, in the place of what [cluster] says.
    """
    with ExitStack() as stack:
        done, known = _run_all(name, files, plan.ready, plan.n_runs, storage, progress, stack, do)
    results = plan.results(done)
    if results and all(result.failed for result in results):
        raise GLoRASearchError(f"every run failed; the last error: {results[-1].error}")
    reference = reference or plan.methods[0]
    return Comparison(
        name=name,
        tasks=plan.tasks,
        reference=reference,
        rows=comparison(results, plan.methods, reference),
        results=results,
        versions=known["versions"],
        machine=known["machine"],
    )


def _run_all(
    name: str,
    files: Mapping[str, StudyFile],
    ready: Callable[[Mapping[str, RunResult]], list[Run]],
    n_runs: int,
    storage: str | None,
    progress: Progress,
    stack: ExitStack,
    do: Doer | None = None,
) -> tuple[dict[str, RunResult], Mapping[str, Any]]:
    """Do what is ready until nothing is; all results by key, and the record's attributes."""
    file = next(iter(files.values()))
    materials = prepare(file, progress)  # trains the backbone, if that has not been done
    database = stack.enter_context(Database.open(driver_url(storage), create=True))
    backbone = {"backbone": materials.fingerprints["backbone"]}
    record = database.open_or_create_bench(
        name,
        space=materials.space,
        attributes={"fingerprints": backbone, "versions": versions(), "machine": machine()},
    )
    known = record.study.attributes
    check_fingerprints(known["fingerprints"], backbone, record.study.name)
    stack.enter_context(record.study.hold())
    done = {key: RunResult.from_json(table) for key, table in record.runs().items()}
    with progress.bar("comparing", n_runs) as bar:
        told = _Told(bar, n_runs)
        told.show(done)
        left = partial(ready, done)
        results = do(left, told.again) if do else _results(left, files, file, told, stack)
        for result in results:
            record.add(result.run.key, result.to_json(), value=result.val_loss)
            done[result.run.key] = result
            told.show(done)
    return done, known


def check_methods(methods: Sequence[str]) -> None:
    """Raise StudyFileError for a method that cannot be compared, or none at all."""
    unknown = [method for method in methods if method not in PUBLISHED_LR]
    if unknown or not methods or len(set(methods)) < len(methods):
        raise StudyFileError(
            f"methods = {', '.join(methods) or 'none'}: each once, of {', '.join(PUBLISHED_LR)}"
        )


def study_digest(file: StudyFile) -> str:
    """Of all keys that may change a figure: not where runs happen, nor where files go."""
    table = file.model_dump(
        mode="json", exclude={"study": {"name", "directory"}, "cluster": True, "export": True}
    )
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


class _Told:
    """Shows on a bar how many runs of a bench are left."""

    def __init__(self, bar: Bar, n_runs: int) -> None:
        self._bar, self._n_runs = bar, n_runs
        self._last: tuple[int, str] = (0, "")

    def show(self, done: Mapping[str, RunResult]) -> None:
        """Move the bar to what is done."""
        failed = sum(result.failed for result in done.values())
        self._last = (min(len(done), self._n_runs), f"{failed} failed" if failed else "")
        self.again()

    def again(self) -> None:
        """Move the bar to where it is, which also looks for an interruption."""
        self._bar.update(*self._last, total=self._n_runs)


def _results(
    ready: Callable[[], list[Run]],
    files: Mapping[str, StudyFile],
    file: StudyFile,
    told: _Told,
    stack: ExitStack,
) -> Iterator[RunResult]:
    section = file.cluster
    if not ready():
        return iter(())
    if not section.workers:
        return run_here(ready, files)
    from glora_search.cluster.connection import WorkerPool, connect, ray

    pool = WorkerPool(
        workers=1 if section.workers == "auto" else section.workers,
        elastic=section.workers == "auto",
        cpus=section.cpus_per_worker,
        gpus=section.gpus_per_worker,
        wait_s=section.wait_s,
    )
    stack.callback(ray.shutdown)
    connect(section.address, pool)
    room = pool.share.times(_nodes()) if section.workers == "auto" else pool.workers
    return run_on_ray(ready, files, workers=room, cpus=pool.cpus, gpus=pool.gpus, poll=told.again)


def _nodes() -> Any:
    from glora_search.cluster.room import all_nodes

    return all_nodes()
