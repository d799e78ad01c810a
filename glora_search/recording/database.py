"""The database: creates, opens and lists studies, sweeps and benches."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from glora_search.recording.bench_record import BENCH_SUFFIX, BenchRecord
from glora_search.recording.connection import Connection
from glora_search.recording.lease import Holder
from glora_search.recording.public_store import PublicStore
from glora_search.recording.public_store import create_study as create_by_public_calls
from glora_search.recording.service_record import SERVICE_SUFFIX, ServiceRecord
from glora_search.recording.store import RESERVED, StudyStore
from glora_search.recording.study_record import StudyRecord, check_attribute
from glora_search.recording.sweep_record import (
    SPACE_KEY,
    SUFFIX,
    Distributions,
    SweepRecord,
    SweepSummary,
    space_to_attribute,
)
from glora_search.recording.trial_codec import JSON
from glora_search.study.errors import DamagedStudyError, StudyFileError, StudyNotFoundError
from glora_search.study.objectives import BY_LOSS, Objectives
from glora_search.study.outcomes import STUDY_NAME
from search_spaces import InvalidConfigError, SearchSpace

if TYPE_CHECKING:
    from glora_search.recording.tallies import Tallies

_log = logging.getLogger(__name__)

KNOWN_SCHEMAS: Final = frozenset({"v3.2.0.a"})
"""The revisions of Optuna's schema whose tables are written directly; of Optuna 5."""

_FORMAT_KEY: Final = f"{RESERVED}format"
_SPACE_KEY: Final = f"{RESERVED}space"
_FITNESS_KEY: Final = f"{RESERVED}fitness"
_SWEEP_KEY: Final = f"{RESERVED}sweep"
_BENCH_KEY: Final = f"{RESERVED}bench"
_SERVICE_KEY: Final = f"{RESERVED}service"
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study as `status` shows it.

    Args:
        name: The study's name.
        objectives: What the study optimises; None if that cannot be read.
        n_complete: Subnets evaluated.
        n_failed: Evaluations that failed.
        best_value: The best fitness so far; None before the first complete evaluation.
        attributes: What was stored with the study, such as its status.
        holder: The process that drives it now; None if there is none.
        fault: Why the study cannot be opened, in one line; the other fields are then empty. None if
            it can.
    """

    name: str
    objectives: Objectives | None = None
    n_complete: int = 0
    n_failed: int = 0
    best_value: float | None = None
    attributes: dict[str, Any]
    holder: Holder | None = None
    fault: str | None = None


class Database:
    """An Optuna database with our studies. It may hold other Optuna studies as well.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST:PORT/NAME`.
        create: Whether to make the SQLite file and Optuna's tables where they are missing.
        known_schemas: Schema revisions whose tables this package writes directly. With any other
            it uses Optuna's public calls.

    Raises:
        StorageError: The database is missing or does not answer, or the file is no database.
    """

    def __init__(
        self, url: str, *, create: bool = True, known_schemas: Collection[str] = KNOWN_SCHEMAS
    ) -> None:
        self._connection = Connection(url, create=create)
        with self._connection.errors():
            # Optuna opens only databases of its own version, so this is Optuna's version too.
            version = self._connection.storage.get_current_version()
        self._fast = version in known_schemas
        self._tallies: Tallies | None = None

    @classmethod
    def open(
        cls, url: str, create: bool, *, known_schemas: Collection[str] = KNOWN_SCHEMAS
    ) -> Database:
        """The database at `url`. Without `create` nothing new is made."""
        return cls(url, create=create, known_schemas=known_schemas)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def shown(self) -> str:
        """The URL as it may be printed: without its password."""
        return self._connection.shown

    @property
    def writes_tables(self) -> bool:
        """Whether this package writes Optuna's tables directly, because it knows their schema."""
        return self._fast

    def close(self) -> None:
        """Close all connections. The object and its records cannot be used afterwards."""
        self._connection.close()

    def create_study(
        self,
        name: str,
        *,
        space: SearchSpace,
        objectives: Objectives,
        attributes: Mapping[str, JSON],
    ) -> StudyRecord:
        """Create a study.

        Args:
            name: See `check_study_name`.
            space: What its subnets are chosen from; stored with it.
            objectives: What it optimises; stored with it.
            attributes: What else to store with it, as JSON can hold it.

        Raises:
            StudyFileError: The name is not legal.
            StudyExistsError: The database has a study of that name, ours or another.
            StorageError: An attribute cannot be stored, or the database fails.
        """
        check_study_name(name)
        self._create(name, space, objectives, attributes, mark=_FORMAT_KEY)
        return self.open_study(name)

    def create_sweep(
        self,
        study: str,
        *,
        space: SearchSpace,
        swept: Distributions,
        attributes: Mapping[str, JSON],
    ) -> SweepRecord:
        """Create the sweep of a study; the study need not exist. Errors as in `create_study`.

        Args:
            study: The study's name.
            space: What its subnets are chosen from.
            swept: For each swept key of [supernet] its distribution.
            attributes: What else to store with it.
        """
        check_study_name(study)
        stored = {**attributes, SPACE_KEY: space_to_attribute(swept)}
        self._create(f"{study}{SUFFIX}", space, BY_LOSS, stored, mark=_SWEEP_KEY)
        return self.open_sweep(study)

    def open_sweep(self, study: str) -> SweepRecord:
        """The sweep of a study.

        Raises:
            StudyNotFoundError: There is none.
            StorageError: What is stored with it cannot be read, or the database fails.
        """
        name, studies = f"{study}{SUFFIX}", self._studies(_SWEEP_KEY, SUFFIX)
        if name not in studies:
            raise StudyNotFoundError(f"no sweep of a study {study!r} in {self.shown}")
        return self._sweep(name, *studies[name])

    def list_sweeps(self) -> list[SweepSummary]:
        """All sweeps, oldest first. Damaged ones are logged and left out."""
        summaries = []
        for name, found in self._studies(_SWEEP_KEY, SUFFIX).items():
            try:
                summaries.append(self._sweep(name, *found).summary())
            except DamagedStudyError as error:
                _log.warning("%s", error)
        return summaries

    def open_or_create_bench(
        self, study: str, *, space: SearchSpace, attributes: Mapping[str, JSON]
    ) -> BenchRecord:
        """The bench of a study; the study need not exist. Errors as in `create_study`.

        Args:
            study: The study's name.
            space: What the subnets of searched methods are chosen from.
            attributes: What to store with a new bench.
        """
        check_study_name(study)
        name = f"{study}{BENCH_SUFFIX}"
        if name not in self._studies(_BENCH_KEY, BENCH_SUFFIX):
            self._create(name, space, BY_LOSS, attributes, mark=_BENCH_KEY)
        found = self._studies(_BENCH_KEY, BENCH_SUFFIX)[name]
        return BenchRecord(self._connection, self._record(name, *found, mark=_BENCH_KEY))

    def create_service(
        self, study: str, *, space: SearchSpace, attributes: Mapping[str, JSON]
    ) -> ServiceRecord:
        """Create what a server keeps of a study; the study need not exist. Errors as in
        `create_study`.

        Args:
            study: The study's name.
            space: Any: nothing is chosen from it, but every record has one.
            attributes: What to store with it.
        """
        check_study_name(study)
        name = f"{study}{SERVICE_SUFFIX}"
        self._create(name, space, BY_LOSS, attributes, mark=_SERVICE_KEY)
        return self.services()[study]

    def services(self) -> dict[str, ServiceRecord]:
        """What servers keep of studies, by the studies' names. Damaged ones are logged and left
        out.
        """
        records = {}
        for name, (study_id, attributes) in self._studies(_SERVICE_KEY, SERVICE_SUFFIX).items():
            try:
                store = self._opened(name, study_id, attributes, mark=_SERVICE_KEY)[0]
            except DamagedStudyError as error:
                _log.warning("%s", error)
                continue
            own = {k: v for k, v in attributes.items() if not k.startswith(RESERVED)}
            study = name.removesuffix(SERVICE_SUFFIX)
            records[study] = ServiceRecord(store, study=study, attributes=own)
        return records

    def delete(self, study: str) -> None:
        """Delete a study, and what servers keep of it, if they are there.

        Raises:
            StudyHeldError: A process drives the study.
            StorageError: The database fails.
        """
        if (found := self._studies().get(study)) is not None:  # first: it may be held
            self._delete(study, *found, mark=_FORMAT_KEY)
        service = f"{study}{SERVICE_SUFFIX}"
        if (found := self._studies(_SERVICE_KEY, SERVICE_SUFFIX).get(service)) is not None:
            self._delete(service, *found, mark=_SERVICE_KEY)

    def _delete(self, name: str, study_id: int, attributes: Mapping[str, Any], mark: str) -> None:
        try:
            record = self._record(name, study_id, attributes, mark=mark)
        except DamagedStudyError as error:
            _log.warning("deleting it all the same: %s", error)
        else:
            with record.hold():
                if self._fast:  # nobody begins to drive it meanwhile
                    return self._remove(study_id)
        return self._remove(study_id)

    def _remove(self, study_id: int) -> None:
        if self._fast:
            from glora_search.recording.table_store import delete_study

            delete_study(self._connection, study_id)
            return
        with self._connection.errors():
            self._connection.storage.delete_study(study_id)

    def _create(
        self,
        name: str,
        space: SearchSpace,
        objectives: Objectives,
        attributes: Mapping[str, JSON],
        *,
        mark: str,
    ) -> None:
        for key, value in attributes.items():
            check_attribute(key, value)
        stored: dict[str, JSON] = {
            **attributes,
            _SPACE_KEY: json.loads(space.to_json()),
            _FITNESS_KEY: str(objectives),
            mark: _FORMAT,  # written last, so that a study with the mark is complete
        }
        if self._fast:
            from glora_search.recording.table_store import create_study as create
        else:
            create = create_by_public_calls
        create(self._connection, name, objectives=objectives, attributes=stored)

    def open_study(self, name: str) -> StudyRecord:
        """The study called `name`.

        Raises:
            StudyNotFoundError: We have no study of that name; the message lists similar names.
            DamagedStudyError: What is stored with it cannot be read.
            StorageError: The database fails.
        """
        studies = self._studies()
        if name not in studies:
            known = [*studies, *self._studies(_SWEEP_KEY, SUFFIX)]
            raise StudyNotFoundError(self._not_found(name, known))
        return self._record(name, *studies[name])

    def list_studies(self) -> list[StudySummary]:
        """All our studies, oldest first, damaged ones included."""
        return [self._summary(name, *found) for name, found in self._studies().items()]

    def _summary(self, name: str, study_id: int, attributes: Mapping[str, Any]) -> StudySummary:
        own = {k: v for k, v in attributes.items() if not k.startswith(RESERVED)}
        try:
            record = self._record(name, study_id, attributes)
            tally, holder = record.tally(), record.holder
        except DamagedStudyError as error:
            told = str(error)
            fault = told if name in told else f"study {name!r} is damaged: {told}"
            return StudySummary(name=name, attributes=own, fault=fault)
        return StudySummary(
            name=name,
            objectives=record.objectives,
            n_complete=tally.n_complete,
            n_failed=tally.n_failed,
            best_value=tally.best_value,
            attributes=own,
            holder=holder,
        )

    def _studies(
        self, mark: str = _FORMAT_KEY, suffix: str = ""
    ) -> dict[str, tuple[int, dict[str, Any]]]:
        """For each of our studies its name, with Optuna's key and all user attributes."""
        if self._fast:
            from glora_search.recording.table_store import all_studies

            studies = all_studies(self._connection)
        else:
            with self._connection.errors():
                found = self._connection.storage.get_all_studies()
            studies = [(study.study_name, study._study_id, study.user_attrs) for study in found]
        return {
            name: (study_id, attributes)
            for name, study_id, attributes in studies
            if mark in attributes
            and name.endswith(suffix)
            and STUDY_NAME.fullmatch(name.removesuffix(suffix))
        }

    def _sweep(self, name: str, study_id: int, attributes: Mapping[str, Any]) -> SweepRecord:
        study = self._record(name, study_id, attributes, mark=_SWEEP_KEY)
        return SweepRecord(self._connection, study)

    def _record(
        self, name: str, study_id: int, attributes: Mapping[str, Any], mark: str = _FORMAT_KEY
    ) -> StudyRecord:
        store, space, objectives = self._opened(name, study_id, attributes, mark)
        return StudyRecord(store, name=name, space=space, objectives=objectives)

    def _opened(
        self, name: str, study_id: int, attributes: Mapping[str, Any], mark: str
    ) -> tuple[StudyStore, SearchSpace, Objectives]:
        """The store of a study, and what is stored with it of space and objectives."""
        if attributes[mark] != _FORMAT:
            raise DamagedStudyError(
                f"study {name!r} is stored in format {attributes[mark]!r}; this version "
                f"reads format {_FORMAT}: update glora-search"
            )
        try:
            space = _space_of(json.dumps(attributes[_SPACE_KEY]))
            objectives = Objectives.of(*attributes[_FITNESS_KEY].split(","))
        except (KeyError, ValueError, TypeError, AttributeError, InvalidConfigError) as error:
            raise DamagedStudyError(f"study {name!r} is damaged: {error}") from error
        store = self._store(name, study_id, space=space, objectives=objectives)
        return store, space, objectives

    def _store(
        self, name: str, study_id: int, *, space: SearchSpace, objectives: Objectives
    ) -> StudyStore:
        study: dict[str, Any] = {"name": name, "space": space, "objectives": objectives}
        if self._fast:
            from glora_search.recording.table_store import TableStore
            from glora_search.recording.tallies import Tallies

            self._tallies = self._tallies or Tallies()
            return TableStore(self._connection, study_id, tallies=self._tallies, **study)
        return PublicStore(self._connection, **study)

    def _not_found(self, name: str, names: list[str]) -> str:
        if not names:
            return f"no study {name!r} in {self.shown}: it holds no studies yet"
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"it holds: {', '.join(names[-10:])}"
        return f"no study {name!r} in {self.shown}; {hint}"


@lru_cache(maxsize=64)  # a list of studies is asked for often, and most share a space
def _space_of(text: str) -> SearchSpace:
    return SearchSpace.from_json(text)


def check_study_name(name: str) -> None:
    """Raise StudyFileError unless `name` can name a study and its folder."""
    if not STUDY_NAME.fullmatch(name):
        raise StudyFileError(
            f"a study cannot be called {name!r}; accepted: 1 to 200 letters, digits, '.', '_' and "
            "'-', not beginning with '.'"
        )
