"""Launch a study and resume it: from a study file, or from the database, to an export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glora_search.errors import StudyExistsError, StudyNotFoundError
from glora_search.evaluating import Evaluator
from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.evaluating.package import EvaluationPackage
from glora_search.exporting import (
    Export,
    chosen_trial,
    existing_export,
    export_trial,
    study_of,
)
from glora_search.prepare import Materials, check_fingerprints, device_of, param_limits, prepare
from glora_search.progress import Bar, Progress, Silent
from glora_search.proposing import SearchSettings, make_proposer
from glora_search.provenance import machine, versions
from glora_search.recording import Database, StudyRecord
from glora_search.recording.urls import parse_url
from glora_search.records import Fitness, Outcome
from glora_search.search import LoopSettings, run_search
from glora_search.storage_url import resolve_storage
from glora_search.study_file import load_study_file, resumed_study
from glora_search.study_sections import StudyFile
from glora_search.supernet_stage import supernet_fingerprint, train_or_load_supernet
from search_spaces import GLoRASearchError
from supernet import Supernet
from supernet.export import check_export_directory

if TYPE_CHECKING:
    from glora_search.evaluating.ray_actors import RayWorkers


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchResult:
    """A finished search.

    Args:
        name: The study.
        outcomes: All of them, sorted by generation and index.
        winner: The best of them.
        export: The winner's export.
        materials: Backbone, data and space that it was made of.
        supernet: The trained supernet.
    """

    name: str
    outcomes: list[Outcome]
    winner: Outcome
    export: Export
    materials: Materials
    supernet: Supernet


def launch(
    study: StudyFile | Path | str,
    *,
    storage: str | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Train (or reuse) the supernet, search it, and export the winner.

    Args:
        study: A study file's path, or what `glora_search.study_file.load_study_file` made of it.
        storage: Database URL; by default the environment's or a SQLite file in the working
            directory.
        progress: Where to report long steps.

    Raises:
        GLoRASearchError: Anything that is wrong with the study file, the data, the backbone, the
            cluster or the database; nothing is recorded unless all of them are in order.
        KeyboardInterrupt: After what has arrived was written; `resume` goes on from there.
    """
    progress = progress or Silent()
    file = study if isinstance(study, StudyFile) else load_study_file(Path(study))
    url = resolve_storage(storage)
    with ExitStack() as stack:
        _check_new(url, file.study.name)
        check_export_directory(file.export_directory)
        workers = _workers(file, stack)
        materials = prepare(file, progress)
        database = stack.enter_context(Database.open(url, create=True))
        record = database.create_study(
            file.study.name,
            space=materials.space,
            fitness=Fitness(file.search.fitness),
            attributes={
                "study": file.model_dump(mode="json"),
                "seed": file.study.seed,
                "versions": versions(),
                "fingerprints": materials.fingerprints,
                "machine": machine(),
                "status": "training",
            },
        )
        stack.enter_context(record.hold())
        return _drive(record, materials, workers, progress)


def resume(
    name: str,
    *,
    overrides: Iterable[str] = (),
    storage: str | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Go on with a study where the database says it stopped; a finished one is only exported if it
    is not.

    Errors as in `launch`; besides, FingerprintError where backbone, data or supernet are not what
    they were.

    Args:
        name: The study.
        overrides: `section.key=value` for keys that do not change what is found: where candidates
            are evaluated, how often things are written, where the export goes.
        storage: As in `launch`.
        progress: As in `launch`.
    """
    progress = progress or Silent()
    with Database.open(resolve_storage(storage), create=False) as database, ExitStack() as stack:
        record = database.open_study(name)
        file = resumed_study(study_of(record), overrides)
        stack.enter_context(record.hold())
        workers = _workers(file, stack)
        materials = prepare(file, progress)
        check_fingerprints(record.attributes["fingerprints"], materials.fingerprints, name)
        return _drive(record, materials, workers, progress)


def search_settings(file: StudyFile) -> SearchSettings:
    """The section [search], as proposers take it."""
    section = file.search
    return SearchSettings(
        sampler=section.sampler,
        operators=section.operators,
        fitness=Fitness(section.fitness),
        population=section.population,
        generations=section.generations,
        parents=section.parents,
        mutations=section.mutations,
        crossovers=section.crossovers,
        mutation_probability=section.mutation_probability,
        limits=param_limits(file),
    )


def _check_new(url: str, name: str) -> None:
    """Refuse a name that is taken, before anything slow; a database file is not made for that."""
    file = parse_url(url).sqlite_file
    if file is not None and not file.exists() and file.parent.is_dir():
        return
    with Database.open(url, create=True) as database:
        try:
            database.open_study(name)
        except StudyNotFoundError:
            return
        raise StudyExistsError(
            f"study {name!r} is in {database.shown} already; go on with it by "
            f"`glora-search resume {name}`, or choose another study.name"
        )


def _workers(file: StudyFile, stack: ExitStack) -> RayWorkers | None:
    """The study's Ray workers, coming up; None where candidates are evaluated in this process."""
    if not file.cluster.workers:
        return None
    from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool

    pool = WorkerPool(
        workers=file.cluster.workers,
        cpus=file.cluster.cpus_per_worker,
        gpus=file.cluster.gpus_per_worker,
        max_tries=file.cluster.max_tries,
    )
    return stack.enter_context(closing(RayWorkers(file.cluster.address, pool)))


def _drive(
    record: StudyRecord, materials: Materials, workers: RayWorkers | None, progress: Progress
) -> SearchResult:
    """From a study that this process holds to its export."""
    file = materials.file
    supernet = train_or_load_supernet(materials, progress)
    found = {"supernet": supernet_fingerprint(supernet)}
    recorded: Mapping[str, str] = record.attributes["fingerprints"]
    check_fingerprints(recorded, found, record.name)
    record.set_attribute("fingerprints", {**recorded, **found})
    record.set_attribute("status", "searching")
    evaluator = _evaluator(materials, supernet, workers)
    outcomes = _search(record, materials, evaluator, progress)
    winner = min(outcomes, key=record.fitness.rank)
    if winner.failed:
        raise GLoRASearchError(
            f"every evaluation of study {record.name!r} failed; the last error: {winner.error}"
        )
    record.set_attribute("status", "exporting")
    number, target = chosen_trial(record, None), file.export_directory
    exported = existing_export(target, record, number) or export_trial(
        record, number, target, materials, supernet, progress
    )
    record.set_attribute("export", exported.summary())
    record.set_attribute("status", "complete")
    return SearchResult(
        name=record.name,
        outcomes=outcomes,
        winner=winner,
        export=exported,
        materials=materials,
        supernet=supernet,
    )


def _search(
    record: StudyRecord, materials: Materials, evaluator: Evaluator, progress: Progress
) -> list[Outcome]:
    file = materials.file
    settings = search_settings(file)
    proposer = make_proposer(materials.space, settings, file.study.seed)
    loop = LoopSettings(
        max_failures=file.search.max_failures,
        flush_every=file.search.flush_every,
        flush_s=file.search.flush_s,
    )
    with (
        closing(evaluator),
        progress.bar("searching", settings.n_candidates) as bar,
    ):
        return run_search(
            record,
            proposer,
            evaluator,
            settings,
            loop,
            on_outcome=_BestSoFar(settings.fitness, bar),
        )


class _BestSoFar:
    """Counts outcomes, and shows the best of them on a bar."""

    def __init__(self, fitness: Fitness, bar: Bar) -> None:
        self._fitness, self._bar = fitness, bar
        self._n = 0
        self._best: Outcome | None = None

    def __call__(self, outcome: Outcome) -> None:
        self._n += 1
        if self._best is None or self._fitness.rank(outcome) < self._fitness.rank(self._best):
            self._best = outcome
        loss, top1 = self._best.loss, self._best.top1
        shown = "" if loss is None else f"best val loss {loss:.4f}, top-1 {top1:.3f}"
        self._bar.update(self._n, shown)


def _evaluator(materials: Materials, supernet: Supernet, workers: RayWorkers | None) -> Evaluator:
    file = materials.file
    package = EvaluationPackage.of(
        supernet,
        materials.architecture,
        materials.val,
        batch_size=file.search.batch_size,
        precision=file.search.precision,
        device=_evaluation_device(file),
        threads=file.cluster.cpus_per_worker,
    )
    return InProcessEvaluator(package) if workers is None else workers.evaluator(package)


def _evaluation_device(file: StudyFile) -> str:
    if not file.cluster.workers:
        return str(device_of(file))
    return "cuda" if file.cluster.gpus_per_worker else "cpu"
