"""Launch a study, and resume it: both end with an export, of the winner by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glora_search.cluster.artifacts import Artifacts
from glora_search.recording import Database, StudyRecord
from glora_search.recording.storage_url import driver_url, parse_url
from glora_search.stages.choosing import Chosen, choose, wanted_by
from glora_search.stages.export_record import Export, existing_export
from glora_search.stages.exporting import export_chosen
from glora_search.stages.prepare import Materials, check_fingerprints, prepare
from glora_search.stages.progress import Progress, Silent
from glora_search.stages.provenance import machine, versions
from glora_search.stages.searching import rescore_finalists, search_precision, search_supernet
from glora_search.stages.trained_once import artifact_name
from glora_search.stages.training import (
    supernet_file,
    supernet_fingerprint,
    train_or_load_supernet,
)
from glora_search.study.attributes import MISSING_IN_VAL
from glora_search.study.errors import ArtifactError, StudyExistsError, StudyNotFoundError
from glora_search.study.outcomes import Outcome
from glora_search.study.reading import load_study_file, resumed_study, stored_study
from glora_search.study.study_file import StudyFile
from search_spaces import GLoRASearchError
from supernet import Supernet
from supernet.data import missing_classes
from supernet.export import FILES as EXPORT_FILES
from supernet.export import check_export_directory
from supernet.formats import check_formats, export_files

if TYPE_CHECKING:
    from glora_search.evaluating.ray_actors import RayWorkers


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchResult:
    """A finished search.

    Args:
        name: The study.
        outcomes: All of them, sorted by generation and index.
        winner: The best of them; where they were measured in bf16, of the finalists in float32.
        export: Of the winner, or of what [export] makes of the best.
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
    """Train (or reuse) the supernet, search it, and export the winner or what [export] says.

    Args:
        study: A study file's path, or what `glora_search.study.reading.load_study_file` made of it.
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
    url = driver_url(storage)
    with ExitStack() as stack:
        starting = stack.enter_context(ExitStack())
        _check_new(url, file.study.name, starting)
        check_export_directory(file.export_directory)
        materials, workers = _begin(file, stack, progress, new=True)
        database = stack.enter_context(Database.open(url, create=True))
        record = database.create_study(
            file.study.name,
            space=materials.space,
            objectives=file.search.optimised,
            attributes={
                "study": materials.file.model_dump(mode="json"),  # its epochs are known by now
                "seed": file.study.seed,
                "versions": versions(),
                "fingerprints": materials.fingerprints,
                "machine": machine(),
                MISSING_IN_VAL: list(missing_classes(materials.train, materials.val)),
                "status": "training",
            },
        )
        stack.enter_context(record.hold())
        starting.close()
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
    with Database.open(driver_url(storage), create=False) as database, ExitStack() as stack:
        record = database.open_study(name)
        file = resumed_study(stored_study(record.attributes["study"]), overrides)
        stack.enter_context(record.hold())
        if (service := database.services().get(name)) is not None:
            service.drop_claim()  # from now on the study's own lease says that it runs
        materials, workers = _begin(file, stack, progress, new=False)
        check_fingerprints(record.attributes["fingerprints"], materials.fingerprints, name)
        return _drive(record, materials, workers, progress)


def _begin(
    file: StudyFile, stack: ExitStack, progress: Progress, *, new: bool
) -> tuple[Materials, Callable[[], RayWorkers | None]]:
    """Prepare a study and its workers; the quickest checks come first."""
    check_formats(file.export.formats)
    _check_artifacts(file, new=new)
    workers = _workers(file, stack, progress)
    return prepare(file, progress), workers


def _check_new(url: str, name: str, starting: ExitStack) -> None:
    """Refuse a name that is taken, before anything slow; a database file is not made for that.

    Args:
        url: Of the database.
        name: Of the study.
        starting: Where a server has asked for this start, holds it against other servers.
    """
    file = parse_url(url).sqlite_file
    if file is not None and not file.exists() and file.parent.is_dir():
        return
    with ExitStack() as stack:
        database = stack.enter_context(Database.open(url, create=True))
        try:
            database.open_study(name)
        except StudyNotFoundError:
            if (service := database.services().get(name)) is not None:
                stack.enter_context(service.taken_over())
                starting.enter_context(stack.pop_all())
            return
        raise StudyExistsError(
            f"study {name!r} is in {database.shown} already; go on with it by "
            f"`glora-search resume {name}`, or choose another study.name"
        )


def _check_artifacts(file: StudyFile, *, new: bool) -> None:
    """Try the artifacts' folder, before anything slow."""
    artifacts = Artifacts(url=file.cluster.artifacts)
    artifacts.check()
    name = _export_name(file.study.name)
    if new and artifacts.has(f"{name}/{EXPORT_FILES[-1]}"):
        raise ArtifactError(
            f"{artifacts.at(name)} holds an export of another study of this name; choose another "
            "study.name or cluster.artifacts, or remove it"
        )


def _export_name(study: str) -> str:
    """What a study's export is called among the artifacts."""
    return f"{study}/export"


def _workers(
    file: StudyFile, stack: ExitStack, progress: Progress
) -> Callable[[], RayWorkers | None]:
    """A function that returns the study's Ray workers; it returns None if candidates are evaluated
    in this process.

    Workers start now, unless the supernet trains on the cluster. Then training needs their room, so
    this only checks the cluster, and the function starts them later.
    """
    if not file.cluster.workers:
        return lambda: None
    from glora_search.cluster.connection import connect, disconnect
    from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool

    section = file.cluster
    pool = WorkerPool.of(section)

    def told(room: int) -> None:
        progress.note(f"waiting for the cluster: room for {room} of {pool.workers} workers")

    def start() -> RayWorkers:
        return stack.enter_context(closing(RayWorkers(section.address, pool, told)))

    if not file.supernet.workers:
        workers = start()
        workers.warm_up()  # before the supernet trains
        return lambda: workers
    if file.cluster.address is not None:
        stack.callback(disconnect)
        connect(file.cluster.address, pool, told)
    return start


def _drive(
    record: StudyRecord,
    materials: Materials,
    workers: Callable[[], RayWorkers | None],
    progress: Progress,
) -> SearchResult:
    """From a study that this process holds to its export."""
    file = materials.file
    supernet = train_or_load_supernet(materials, progress)
    found = {"supernet": supernet_fingerprint(supernet)}
    recorded: Mapping[str, str] = record.attributes["fingerprints"]
    check_fingerprints(recorded, found, record.name)
    record.set_attribute("fingerprints", {**recorded, **found})
    precision = record.attributes.get("precision") or search_precision(file)
    record.set_attribute("precision", precision)
    record.set_attribute("status", "searching")
    outcomes = search_supernet(record, materials, supernet, workers(), progress)
    best = min(outcomes, key=record.objectives.rank)
    if best.failed:
        raise GLoRASearchError(
            f"every evaluation of study {record.name!r} failed; the last error: {best.error}"
        )
    trials = record.trials()
    if precision != "fp32" and file.search.finalists:
        rescore_finalists(record, trials, materials, supernet, progress)
    record.set_attribute("status", "exporting")
    chosen = choose(record, trials, wanted_by(file.export))
    exported = _export_at_end(record, chosen, materials, supernet, progress)
    record.set_attribute("export", exported.summary())
    record.set_attribute("status", "complete")
    return SearchResult(
        name=record.name,
        outcomes=outcomes,
        winner=exported.outcome,
        export=exported,
        materials=materials,
        supernet=supernet,
    )


def _export_at_end(
    record: StudyRecord,
    chosen: Chosen,
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
) -> Export:
    """The export that ends a search, made unless it is there. It and the supernet are put among
    the artifacts.
    """
    file, artifacts, name = materials.file, materials.artifacts, _export_name(record.name)
    path, _ = supernet_file(materials)
    if file.supernet.checkpoint is None:  # else it is an input
        artifacts.put_missing(path, artifact_name(path))
        record.set_attribute("supernet", artifacts.at(artifact_name(path)) or str(path))
    target, formats = file.export_directory, check_formats(file.export.formats)
    if artifacts.fetch_folder(name, target, export_files(EXPORT_FILES, formats)):
        progress.note(f"fetched {artifacts.at(name)}")
    exported = existing_export(target, record, chosen, formats) or export_chosen(
        record, chosen, target, materials, supernet, progress, formats=formats
    )
    artifacts.put_folder(target, name, export_files(EXPORT_FILES, exported.formats))
    return replace(exported, artifact=artifacts.at(name))
