"""Compare methods on a study's data, or on the tasks of a suite: runs, recorded and resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glora_search.bench.plan import BenchPlan
from glora_search.bench.recipes import PUBLISHED_EPOCHS, PUBLISHED_LR, sweep_rates
from glora_search.bench.runs import RunResult
from glora_search.bench.schedule import run_here, run_on_ray
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


def compare(
    study: StudyFile | Path | str,
    *,
    methods: Sequence[str],
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
        methods: Names, see `glora_search.bench.recipes.PUBLISHED_LR`.
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
    return compare_tasks(
        file.study.name,
        {file.study.name: file},
        methods=methods,
        seeds=seeds,
        epochs=epochs,
        reference=reference,
        sweep=sweep,
        storage=storage,
        progress=progress,
    )


def compare_tasks(
    name: str,
    files: Mapping[str, StudyFile],
    *,
    methods: Sequence[str],
    seeds: int,
    epochs: int,
    reference: str | None,
    sweep: bool,
    storage: str | None,
    progress: Progress | None,
) -> Comparison:
    """As `compare`, on several tasks: `files` has the study of each, with the same [cluster]."""
    progress = progress or Silent()
    check_methods(methods)
    reference = reference or methods[0]
    check_methods([reference])
    file = next(iter(files.values()))
    plan = BenchPlan(
        tasks=tuple(files),
        methods=tuple(methods),
        seeds=seeds,
        lrs={m: sweep_rates(m) if sweep else (PUBLISHED_LR[m],) for m in methods},
        epochs={m: file.supernet.epochs if m.startswith("glora-") else epochs for m in methods},
        studies={task: _digest(each) for task, each in files.items()},
    )
    with ExitStack() as stack:
        materials = prepare(file, progress)  # trains the backbone, if that has not been done
        database = stack.enter_context(Database.open(driver_url(storage), create=True))
        record = database.open_or_create_bench(
            name,
            space=materials.space,
            attributes={
                "fingerprints": {"backbone": materials.fingerprints["backbone"]},
                "versions": versions(),
                "machine": machine(),
            },
        )
        known = record.study.attributes
        found = {"backbone": materials.fingerprints["backbone"]}
        check_fingerprints(known["fingerprints"], found, record.study.name)
        stack.enter_context(record.study.hold())
        done = {key: RunResult.from_json(table) for key, table in record.runs().items()}
        with progress.bar("comparing", plan.n_runs) as bar:
            told = _Told(bar, plan)
            told.show(done)
            for result in _results(plan, files, file, done, told, stack):
                table = result.to_json()
                record.add(result.run.key, table, value=result.val_loss)
                done[result.run.key] = result
                told.show(done)
        results = plan.results(done)
    if results and all(result.failed for result in results):
        raise GLoRASearchError(f"every run failed; the last error: {results[-1].error}")
    return Comparison(
        name=name,
        tasks=plan.tasks,
        reference=reference,
        rows=comparison(results, plan.methods, reference),
        results=results,
        versions=known["versions"],
        machine=known["machine"],
    )


def check_methods(methods: Sequence[str]) -> None:
    """Raise StudyFileError for a method that cannot be compared, or none at all."""
    unknown = [method for method in methods if method not in PUBLISHED_LR]
    if unknown or not methods or len(set(methods)) < len(methods):
        raise StudyFileError(
            f"methods = {', '.join(methods) or 'none'}: each once, of {', '.join(PUBLISHED_LR)}"
        )


def _digest(file: StudyFile) -> str:
    """Of all keys that may change a figure: not where runs happen, nor where files go."""
    table = file.model_dump(
        mode="json", exclude={"study": {"name", "directory"}, "cluster": True, "export": True}
    )
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


class _Told:
    """Shows on a bar how far a bench is."""

    def __init__(self, bar: Bar, plan: BenchPlan) -> None:
        self._bar, self._plan = bar, plan
        self._last: tuple[int, str] = (0, "")

    def show(self, done: Mapping[str, RunResult]) -> None:
        """Move the bar to what is done."""
        failed = sum(result.failed for result in done.values())
        self._last = (len(done), f"{failed} failed" if failed else "")
        self.again()

    def again(self) -> None:
        """Move the bar to where it is, which also looks for an interruption."""
        self._bar.update(*self._last, total=max(self._plan.n_runs, self._last[0]))


def _results(
    plan: BenchPlan,
    files: Mapping[str, StudyFile],
    file: StudyFile,
    done: Mapping[str, RunResult],
    told: _Told,
    stack: ExitStack,
) -> Iterator[RunResult]:
    ready: Callable[[], list[Any]] = lambda: plan.ready(done)  # noqa: E731
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
