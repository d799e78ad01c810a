"""The three commands as functions: launch a study, resume it, export a subnet of it."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glora_search.errors import StudyExistsError, StudyNotFoundError
from glora_search.evaluating import Evaluator
from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.evaluating.package import EvaluationPackage
from glora_search.prepare import (
    Materials,
    check_fingerprints,
    device_of,
    param_limits,
    prepare,
    supernet_fingerprint,
    train_or_load_supernet,
)
from glora_search.progress import Progress, Silent
from glora_search.proposing import SearchSettings, make_proposer
from glora_search.recording import Database, StudyRecord
from glora_search.recording.urls import parse_url
from glora_search.records import Fitness, Outcome
from glora_search.search import LoopSettings, run_search
from glora_search.storage_url import resolve_storage
from glora_search.study_file import StudyFile, load_study_file, resumed_study
from search_spaces import GLoRASearchError
from supernet import Supernet, evaluate_model
from supernet.errors import DataError, ExportError
from supernet.export import check_export_directory, largest_logit_difference, write_export

if TYPE_CHECKING:
    from glora_search.evaluating.ray_actors import RayWorkers

_log = logging.getLogger(__name__)

_PACKAGES = ("glora-search", "torch", "timm", "optuna", "ray", "numpy")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A network's numbers on one split."""

    top1: float
    loss: float
    n_images: int


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export says of itself.

    Args:
        directory: Where it is.
        trial: Optuna's number of the exported subnet.
        outcome: Its record.
        val: Its numbers on the validation split.
        test: Its numbers on the test split; None where the data set has none.
        logit_difference: The largest absolute one between subnet and merged model on validation
            images.
        n_params: Scalars of `adapter`, `head` and `merged_model`.
    """

    directory: Path
    trial: int
    outcome: Outcome
    val: Figures
    test: Figures | None
    logit_difference: float
    n_params: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """What is stored with the study, and shown."""
        test = self.test
        return {
            "directory": str(self.directory),
            "trial": self.trial,
            "val": asdict(self.val),
            "test": None if test is None else asdict(test),
            "logit_difference": self.logit_difference,
            "n_params": self.n_params,
        }


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


def export(
    name: str,
    out: Path,
    *,
    trial: int | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write one subnet of a study as a plain network; the best one by default.

    Args:
        name: The study.
        out: A directory that is new or empty.
        trial: Optuna's number of the subnet.
        storage: As in `launch`.
        progress: As in `launch`.

    Raises:
        GLoRASearchError: No such study or trial, changed inputs, or a directory that is not empty.
    """
    progress = progress or Silent()
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        check_export_directory(out)
        number = _chosen_trial(record, trial)
        recorded = record.attributes["fingerprints"]
        if "supernet" not in recorded:
            raise ExportError(f"study {name!r} has no trained supernet yet; resume it first")
        materials = prepare(study_of(record), progress)
        check_fingerprints(recorded, materials.fingerprints, name)
        supernet = train_or_load_supernet(materials, progress)
        check_fingerprints(recorded, {"supernet": supernet_fingerprint(supernet)}, name)
        return _export(record, number, out, materials, supernet, progress)


def study_of(record: StudyRecord) -> StudyFile:
    """The resolved study file that is stored with a study."""
    return StudyFile.from_json(json.dumps(record.attributes["study"]))


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def machine() -> dict[str, Any]:
    """What this process runs on, as far as numbers depend on it."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": platform.machine(), "threads": torch.get_num_threads(), "gpu": gpu}


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
    number, target = _chosen_trial(record, None), file.export_directory
    exported = _existing_export(target, record, number) or _export(
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
        seen: list[Outcome] = []

        def on_outcome(outcome: Outcome) -> None:
            best = min([*seen[:1], outcome], key=settings.fitness.rank)
            seen[:] = [best, *seen[1:], outcome]
            if not best.failed:
                bar.update(len(seen) - 1, f"best val loss {best.loss:.4f}, top-1 {best.top1:.3f}")

        return run_search(record, proposer, evaluator, settings, loop, on_outcome=on_outcome)


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


def _chosen_trial(record: StudyRecord, trial: int | None) -> int:
    trials = record.trials()
    if trial is not None:
        outcome = trials.get(trial)
        if outcome is None:
            raise ExportError(
                f"study {record.name!r} has no trial {trial}; it has {len(trials)}, numbered from 0"
            )
        if outcome.failed:
            raise ExportError(f"trial {trial} failed ({outcome.error_type}): nothing to export")
        return trial
    complete = {number: o for number, o in trials.items() if not o.failed}
    if not complete:
        raise ExportError(f"study {record.name!r} has no evaluated subnet yet; resume it first")
    return min(complete, key=lambda number: record.fitness.rank(complete[number]))


def _export(
    record: StudyRecord,
    number: int,
    out: Path,
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
) -> Export:
    file = materials.file
    outcome = record.trials()[number]
    subnet = outcome.candidate.subnet
    merged = supernet.merge(subnet)
    difference = largest_logit_difference(supernet, merged, subnet, materials.val)
    if not difference <= file.export.tolerance:
        raise ExportError(
            f"the merged model differs from its subnet by {difference:.2g} in a logit of the "
            f"validation images; export.tolerance is {file.export.tolerance:g}. Nothing was written"
        )
    assert outcome.top1 is not None, "a failed trial is not chosen"
    assert outcome.loss is not None, "a failed trial is not chosen"
    val = Figures(top1=outcome.top1, loss=outcome.loss, n_images=len(materials.val))
    test = _test_evaluation(materials, merged, progress)
    attributes = record.attributes
    n_params = {
        "adapter": outcome.candidate.n_params,
        "head": sum(t.numel() for t in supernet.head_state().values()),
        "merged_model": sum(p.numel() for p in merged.parameters()),
    }
    write_export(
        out,
        supernet=supernet,
        merged=merged,
        subnet=subnet,
        architecture=materials.architecture,
        preprocessing=materials.preprocessing,
        class_names=materials.val.class_names,
        record={
            "study": record.name,
            "trial": number,
            "generation": outcome.candidate.generation,
            "index": outcome.candidate.index,
            "digest": subnet.digest,
            "val": asdict(val),
            "test": None if test is None else asdict(test),
            "n_params": n_params,
            "largest_logit_difference_val": difference,
            "seed": attributes["seed"],
            "fingerprints": attributes["fingerprints"],
            "versions": versions(),
        },
    )
    return Export(
        directory=out,
        trial=number,
        outcome=outcome,
        val=val,
        test=test,
        logit_difference=difference,
        n_params=n_params,
    )


def _test_evaluation(
    materials: Materials, merged: torch.nn.Module, progress: Progress
) -> Figures | None:
    try:
        test = materials.test_split(progress)
    except DataError as error:
        _log.warning("the export has no test figures: %s", error)
        return None
    device = next(merged.parameters()).device
    batch_size = materials.file.search.batch_size
    evaluation = evaluate_model(merged, test.to(device), batch_size=batch_size)
    return Figures(top1=evaluation.top1, loss=evaluation.loss, n_images=evaluation.n_images)


def _existing_export(directory: Path, record: StudyRecord, number: int) -> Export | None:
    """The export of this trial that stands in `directory` already: its writing is all or
    nothing.
    """
    text = directory / "subnet.json"
    if not text.is_file():
        return None
    try:
        found = json.loads(text.read_text())
        outcome = record.trials()[number]
        mine = (record.name, outcome.candidate.subnet.digest, record.attributes["fingerprints"])
        if (found["study"], found["digest"], found["fingerprints"]) != mine:
            return None
        return Export(
            directory=directory,
            trial=number,
            outcome=outcome,
            val=Figures(**found["val"]),
            test=None if found["test"] is None else Figures(**found["test"]),
            logit_difference=found["largest_logit_difference_val"],
            n_params=found["n_params"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not an export of ours: writing there is refused
