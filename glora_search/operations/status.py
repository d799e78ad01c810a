"""What a database holds and how far it is: all studies, one study, one sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from glora_search.operations.front_status import FrontStatus, front_status
from glora_search.recording import (
    Database,
    Holder,
    StudyRecord,
    StudySummary,
    SweepSummary,
    read_layers,
)
from glora_search.recording.storage_url import resolve_storage
from glora_search.study.errors import DamagedStudyError
from glora_search.study.finalists import Finalist, from_attributes, to_attribute, winner_of
from glora_search.study.objectives import LOSS, Objectives
from glora_search.study.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class ListedStudy:
    """One line of the list of studies: a study or a sweep.

    Args:
        study: Its name; a sweep's ends with `/sweep`.
        status: The stage that it has reached; `damaged` where it cannot be read.
        evaluated: Subnets, or recipes of a sweep, that have figures.
        failed: Those that failed.
        planned: How many there will be; None where that is not stored.
        max_failures: At how many failures it ends; None where that is not stored.
        fitness: What it optimises.
        best: The best fitness so far.
        best_text: The same as tables show it.
        held_by: The process that drives it now.
        flush_s: Seconds that its last flush took; None where that is not known, and for a sweep.
        workers: How many its study file asks for, 1 where the driver evaluates itself; None where
            it takes as many as there are, and for a sweep.
        fault: Why it cannot be read; None where it can.
    """

    study: str
    status: str | None = None
    evaluated: int = 0
    failed: int = 0
    planned: int | None = None
    max_failures: int | None = None
    fitness: str = ""
    best: float | None = None
    best_text: str = "-"
    held_by: str | None = None
    flush_s: float | None = None
    workers: int | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        if self.fault is not None:
            return {"study": self.study, "status": self.status, "fault": self.fault}
        return {
            "study": self.study,
            "status": self.status,
            "evaluated": self.evaluated,
            "failed": self.failed,
            "planned": self.planned,
            "fitness": self.fitness,
            "best": self.best,
            "held_by": self.held_by,
        }


@dataclass(frozen=True, kw_only=True)
class DatabaseStatus:
    """All studies and sweeps of a database.

    Args:
        shown: The database's URL without a password.
        studies: The oldest first, sweeps after studies.
    """

    shown: str
    studies: tuple[ListedStudy, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """For programs."""
        return [study.to_json() for study in self.studies]


@dataclass(frozen=True, kw_only=True)
class GenerationStatus:
    """How one generation came out; the figures are those of its best subnet."""

    generation: int
    evaluated: int
    failed: int
    best_loss: float | None
    best_top1: float | None
    best_n_params: int | None


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """How far a study is.

    Args:
        study: Its name.
        status: The stage that it has reached.
        planned: How many subnets it will evaluate; None where that is not stored.
        mode: `generational` or `steady-state`.
        fitness: What it optimises.
        held_by: The process that drives it now.
        held_since: Seconds since 1970; None where no process drives it.
        best: Number and outcome of the winner so far.
        evaluated: Subnets that have figures.
        failed: Those that failed.
        finalists: The best in float32, where the search measured in bf16.
        generations: In their order.
        supernet: Where the trained supernet is.
        export: What is stored of the winner's export.
        front: Of a study of two objectives, once a subnet is evaluated.
    """

    study: str
    status: str | None
    planned: int | None
    mode: str
    fitness: str
    held_by: str | None
    held_since: float | None
    best: tuple[int, Outcome] | None
    evaluated: int
    failed: int
    finalists: tuple[Finalist, ...]
    generations: tuple[GenerationStatus, ...]
    supernet: str | None
    export: dict[str, Any] | None
    front: FrontStatus | None = None

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        best = None
        if self.best is not None:
            trial, outcome = self.best
            best = {
                "trial": trial,
                "loss": outcome.loss,
                "top1": outcome.top1,
                "n_params": outcome.candidate.n_params,
                "digest": outcome.candidate.subnet.digest,
            }
        front = {} if self.front is None else {"front": self.front.to_json()}
        return {
            "study": self.study,
            "status": self.status,
            "evaluated": self.evaluated,
            "failed": self.failed,
            "planned": self.planned,
            "mode": self.mode,
            "fitness": self.fitness,
            "held_by": self.held_by,
            "best": best,
            "finalists": to_attribute(self.finalists),
            "generations": [vars(generation) for generation in self.generations],
            "supernet": self.supernet,
            "export": self.export,
            **front,
        }


def list_studies(storage: str | None = None) -> DatabaseStatus:
    """All studies of a database, and all sweeps.

    Args:
        storage: As in `glora_search.launch`.

    Raises:
        StorageError: There is no such database, or it fails.
    """
    with Database.open(resolve_storage(storage), create=False) as database:
        return listed_studies(database)


def listed_studies(database: Database) -> DatabaseStatus:
    """As `list_studies`, of a database that is open."""
    studies = [_listed(study) for study in database.list_studies()]
    sweeps = [_listed_sweep(sweep) for sweep in database.list_sweeps()]
    return DatabaseStatus(shown=database.shown, studies=(*studies, *sweeps))


def study_status(name: str, storage: str | None = None) -> StudyStatus:
    """How far one study is, generation by generation.

    Raises:
        StudyNotFoundError: There is none of that name.
        DamagedStudyError: What is stored with it cannot be read.
        StorageError: The database fails.
    """
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        found = status_of(record, record.outlines(), record.attributes, record.holder)
        if found.best is not None:
            read_layers([found.best[1].candidate.subnet])  # while the database is open
        return found


def sweep_status(study: str, storage: str | None = None) -> SweepSummary:
    """How far the sweep of a study is; errors as in `study_status`."""
    with Database.open(resolve_storage(storage), create=False) as database:
        return database.open_sweep(study).summary()


def _listed(study: StudySummary) -> ListedStudy:
    if study.objectives is None:
        return ListedStudy(study=study.name, status="damaged", fault=study.fault)
    try:
        with _telling_damage(study.name):
            planned, workers = _planned(study.attributes), _workers(study.attributes)
            best = _best_value(study.attributes, study.objectives, study.best_value)
    except DamagedStudyError as error:
        return ListedStudy(study=study.name, status="damaged", fault=str(error))
    return ListedStudy(
        study=study.name,
        status=study.attributes.get("status"),
        evaluated=study.n_complete,
        failed=study.n_failed,
        planned=planned,
        max_failures=_search_section(study.attributes).get("max_failures"),
        fitness=f"val {study.objectives}",
        best=best,
        best_text=study.objectives.each[0].text(best),
        held_by=None if study.holder is None else str(study.holder),
        flush_s=None if study.holder is None else study.holder.flush_s,
        workers=workers,
    )


@contextmanager
def _telling_damage(name: str) -> Iterator[None]:
    """Raise DamagedStudyError where what is stored with a study is not as it was written."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        told = f"study {name!r} is damaged: {type(error).__name__}: {error}"
        raise DamagedStudyError(told) from error


def _workers(attributes: Mapping[str, Any]) -> int | None:
    workers = attributes.get("study", {}).get("cluster", {}).get("workers")
    return max(1, workers) if isinstance(workers, int) else None


def _listed_sweep(sweep: SweepSummary) -> ListedStudy:
    best = None if sweep.best is None else sweep.best[1].loss
    return ListedStudy(
        study=sweep.name,
        status=sweep.attributes.get("status"),
        evaluated=len(sweep.trials) - sweep.n_failed,
        failed=sweep.n_failed,
        planned=sweep.attributes.get("planned"),
        fitness="mean val loss",
        best=best,
        best_text=LOSS.text(best),
        held_by=sweep.held_by,
    )


def status_of(
    record: StudyRecord,
    trials: Mapping[int, Outcome],
    attributes: dict[str, Any],
    holder: Holder | None,
) -> StudyStatus:
    """How far a study is, by what was read of it.

    Raises:
        DamagedStudyError: What is stored with it cannot be read.
    """
    with _telling_damage(record.name):
        finalists = tuple(from_attributes(attributes))
        planned = _planned(attributes)
        mode = _search_section(attributes).get("mode", "generational")
    best = winner_of(trials, record.objectives, finalists)
    failed = sum(outcome.failed for outcome in trials.values())
    return StudyStatus(
        study=record.name,
        status=attributes.get("status"),
        planned=planned,
        mode=mode,
        fitness=f"val {record.objectives}",
        held_by=None if holder is None else str(holder),
        held_since=None if holder is None else holder.since,
        best=None if best is None else (best, trials[best]),
        evaluated=len(trials) - failed,
        failed=failed,
        finalists=finalists,
        generations=tuple(_generations(list(trials.values()), record.objectives)),
        supernet=attributes.get("supernet"),
        export=attributes.get("export"),
        front=front_status(trials, record.objectives) if record.objectives.are_two else None,
    )


def _generations(outcomes: list[Outcome], objectives: Objectives) -> Iterator[GenerationStatus]:
    grouped: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.candidate.generation, []).append(outcome)
    for generation, here in sorted(grouped.items()):
        complete = [outcome for outcome in here if not outcome.failed]
        best = min(complete, key=objectives.rank, default=None)
        yield GenerationStatus(
            generation=generation,
            evaluated=len(complete),
            failed=len(here) - len(complete),
            best_loss=None if best is None else best.loss,
            best_top1=None if best is None else best.top1,
            best_n_params=None if best is None else best.candidate.n_params,
        )


def _best_value(
    attributes: dict[str, Any], objectives: Objectives, best: float | None
) -> float | None:
    """The winner's value: in float32, where finalists were scored again."""
    finalists = from_attributes(attributes)
    if not finalists or finalists[0].loss is None:
        return best
    measured = objectives.first.measured
    return best if measured is None else measured(finalists[0])


def _planned(attributes: dict[str, Any]) -> int | None:
    search = _search_section(attributes)
    return int(search["population"] * (search["generations"] + 1)) if search else None


def _search_section(attributes: dict[str, Any]) -> dict[str, Any]:
    """The section [search] of the stored study; empty where none is stored."""
    section: dict[str, Any] = attributes.get("study", {}).get("search") or {}
    return section
