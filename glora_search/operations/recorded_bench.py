"""Executes the runs of a comparison where [cluster] says, and records each result.

`comparing` and `suites` define what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from glora_search.bench.data_check import check_data
from glora_search.bench.layout import Layout
from glora_search.bench.plan import BenchPlan
from glora_search.bench.published import VTAB_PUBLISHED, PublishedFigure
from glora_search.bench.runs import Run, RunResult
from glora_search.bench.schedule import Ready, run_here, run_on_ray
from glora_search.bench.suite_plan import check_methods
from glora_search.bench.suites import Suite
from glora_search.bench.table import Row, comparison
from glora_search.recording import Database
from glora_search.recording.storage_url import driver_url
from glora_search.stages.prepare import check_fingerprints, prepare
from glora_search.stages.progress import Bar, Progress
from glora_search.stages.provenance import machine, versions
from glora_search.study.study_file import StudyFile
from search_spaces import GLoRASearchError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison that has ended.

    Args:
        name: Of the study, or of the suite.
        layout: The tasks, and which means are told.
        reference: The method to which the others are compared.
        rows: One a method.
        results: Of all final runs.
        published: Figures of the literature that stand beside.
        versions: That the results depend on.
        machine: Likewise.
    """

    name: str
    layout: Layout
    reference: str
    rows: list[Row]
    results: list[RunResult]
    published: tuple[PublishedFigure, ...]
    versions: dict[str, str]
    machine: dict[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those compared."""
        return self.layout.tasks

    def to_json(self) -> dict[str, Any]:
        """For programs: the rows, and every final run."""
        return {
            "name": self.name,
            "tasks": list(self.tasks),
            "suite": self.layout.to_json(),
            "reference": self.reference,
            "rows": [row.to_json() for row in self.rows],
            "runs": [result.to_json() for result in self.results],
            "published": [figure.to_json() for figure in self.published],
            "versions": self.versions,
            "machine": self.machine,
        }


Doer = Callable[[Ready, Callable[[], None]], Iterator[RunResult]]
"""Does runs: given those that are ready, and what to call now and then while it waits."""


class Agenda(Protocol):
    """What is to be run: a `BenchPlan`, or a `PowerPlan`."""

    @property
    def n_runs(self) -> int:
        """Runs in all."""
        ...

    def ready(self, done: Mapping[str, RunResult]) -> list[Run]:
        """Runs that can start now."""
        ...

    def mine(self, done: Mapping[str, RunResult]) -> list[RunResult]:
        """Results of its runs among those of a record."""
        ...


def compare_suite(
    suite: Suite,
    plan: BenchPlan,
    reference: str,
    storage: str | None,
    progress: Progress,
    *,
    do: Doer | None = None,
) -> Comparison:
    """Do the runs of a plan that are not recorded yet, and compare all.

    Args:
        suite: The tasks.
        plan: Which runs.
        reference: The method to which the others are compared.
        storage: As in `glora_search.launch`.
        progress: Where to report.
        do: Does the runs, in the place of what [cluster] says.

    Raises:
        StudyFileError: An unknown reference.
        DataError: A list or a file of any task is wrong.
        GLoRASearchError: As in `glora_search.launch`; also where every run failed.
        KeyboardInterrupt: Runs that had ended are recorded.
    """
    check_methods([reference])
    seeds = {*range(plan.seeds), *plan.sweep_splits.values()}
    check_data(suite.files, suite.test_sets, sorted(seeds), progress)
    with ExitStack() as stack:
        done, known = run_all(suite, plan, storage, progress, stack, do=do)
    results = plan.results(done)
    if results and all(result.failed for result in results):
        raise GLoRASearchError(f"every run failed; the last error: {results[-1].error}")
    return Comparison(
        name=suite.name,
        layout=suite.layout,
        reference=reference,
        rows=comparison(results, plan.methods, reference, suite.layout),
        results=results,
        published=VTAB_PUBLISHED if suite.published else (),
        versions=known["versions"],
        machine=known["machine"],
    )


def run_all(
    suite: Suite,
    agenda: Agenda,
    storage: str | None,
    progress: Progress,
    stack: ExitStack,
    *,
    cluster: ExitStack | None = None,
    do: Doer | None = None,
) -> tuple[dict[str, RunResult], Mapping[str, Any]]:
    """Do what is ready until nothing is; all results by key, and the record's attributes.

    A run that failed in an earlier call is done again.

    Args:
        suite: The tasks.
        agenda: Which runs.
        storage: As in `glora_search.launch`.
        progress: Where to report.
        stack: Closes the database.
        cluster: Leaves the cluster, which the next call may go on using; `stack` if not given.
        do: As in `compare_suite`.
    """
    file = next(iter(suite.files.values()))
    materials = prepare(file, progress)  # trains the backbone, if that has not been done
    backbone, space = {"backbone": materials.fingerprints["backbone"]}, materials.space
    del materials  # the images of the first task
    database = stack.enter_context(Database.open(driver_url(storage), create=True))
    record = database.open_or_create_bench(
        suite.name,
        space=space,
        attributes={"fingerprints": backbone, "versions": versions(), "machine": machine()},
    )
    known = record.study.attributes
    check_fingerprints(known["fingerprints"], backbone, record.study.name)
    stack.enter_context(record.study.hold())
    recorded = [RunResult.from_json(table) for table in record.runs().values()]
    done = {result.run.key: result for result in recorded if not result.failed}
    with progress.bar("comparing", agenda.n_runs) as bar:
        told = _Told(bar, agenda)
        told.show(done)
        left = partial(agenda.ready, done)
        leave = stack if cluster is None else cluster
        results = do(left, told.again) if do else _results(left, suite.files, file, told, leave)
        for result in results:
            record.add(result.run.key, result.to_json(), value=result.val_loss)
            done[result.run.key] = result
            told.show(done)
    return done, known


class _Told:
    """Shows on a bar how many runs of a bench are left."""

    def __init__(self, bar: Bar, agenda: Agenda) -> None:
        self._bar, self._agenda = bar, agenda
        self._last: tuple[int, str] = (0, "")

    def show(self, done: Mapping[str, RunResult]) -> None:
        """Move the bar to what is done."""
        mine = self._agenda.mine(done)
        failed = sum(result.failed for result in mine)
        self._last = (len(mine), f"{failed} failed" if failed else "")
        self.again()

    def again(self) -> None:
        """Move the bar to where it is, which also looks for an interruption."""
        self._bar.update(*self._last, total=self._agenda.n_runs)


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
    from glora_search.cluster.connection import WorkerPool, connect, disconnect, ray

    pool = WorkerPool.of(section)
    if not ray.is_initialized():
        stack.callback(disconnect)
    connect(section.address, pool)
    room = pool.share.times(_nodes()) if pool.elastic else pool.workers
    return run_on_ray(ready, files, workers=room, cpus=pool.cpus, gpus=pool.gpus, poll=told.again)


def _nodes() -> Any:
    from glora_search.cluster.room import all_nodes

    return all_nodes()
