"""What the routes of one process share: the settings, the open database, what was read of it."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from glora_search.operations.following import FollowedStudies, StudyView
from glora_search.operations.running import JobRunner, ProcessRunner, Runner, last_line, last_words
from glora_search.operations.serving import log_of, starter_of, table_of, unlaunched_status
from glora_search.recording import Database
from glora_search.server.job_logs import JobLogs
from glora_search.server.settings import ServerSettings
from glora_search.server.shapes import status_table
from glora_search.study.errors import StudyNotFoundError
from search_spaces import GLoRASearchError

_log = logging.getLogger(__name__)


class Service:
    """The settings, the open database, and the studies that were asked for. Safe to use from
    several threads. Nothing in it is needed again after a restart.

    Args:
        settings: What the server was told.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._studies: FollowedStudies | None = None
        self._job_logs = None if settings.address is None else JobLogs(settings.address)

    @property
    def database(self) -> Database:
        """The database, opened when it is first needed, so that a server starts without it.

        Raises:
            StorageError: It cannot be opened.
        """
        with self._lock:
            if self._database is None:
                self._database = Database.open(self.settings.storage, create=True)
            return self._database

    def open_early(self) -> None:
        """Begin to open the database, for which the first request would wait half a second."""
        threading.Thread(target=self._open, name="open-database", daemon=True).start()

    def _open(self) -> None:
        try:
            self.database  # noqa: B018 - the property opens it
        except GLoRASearchError as error:  # each request tells; later ones may find it
            _log.warning("the database cannot be opened for now: %s", error)

    @property
    def studies(self) -> FollowedStudies:
        """The studies that were asked for."""
        database = self.database
        with self._lock:
            if self._studies is None:
                self._studies = FollowedStudies(database)
            return self._studies

    @cached_property
    def runner(self) -> Runner:
        """Where studies run."""
        settings = self.settings
        if settings.address is not None:
            return JobRunner(address=settings.address, storage=settings.job_storage)
        return ProcessRunner(root=settings.root, storage=settings.storage)

    @property
    def exporter(self) -> ProcessRunner:
        """Where exports of subnets are made: on this machine, wherever studies run."""
        return ProcessRunner(root=self.settings.root, storage=self.settings.storage)

    def view(self, name: str) -> StudyView:
        """A study that was launched, as it is now.

        Raises:
            StudyNotFoundError: There is none of that name, or it was not launched yet.
        """
        try:
            return self.studies.read(name)
        except StudyNotFoundError as not_found:
            if table_of(self.database, name) is None:
                raise
            raise StudyNotFoundError(f"study {name!r} was not launched yet") from not_found

    def status(self, name: str) -> dict[str, Any]:
        """How far a study is, launched or not, as `StatusShape`; errors as in `view`."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[dict[str, Any], StudyView | None]:
        """The status of a study, and what it is of: None before the launch; errors as in `view`."""
        try:
            view = self.view(name)
        except StudyNotFoundError as not_found:
            try:
                status = unlaunched_status(self.database, name)
            except StudyNotFoundError:
                raise not_found from None  # it names similar ones
            running = status.held_by is not None
            progress = self.progress(name)
            return status_table(status, position=0, running=running, progress=progress), None
        status = view.status
        if view.holder is None and (starter := starter_of(self.database, name)) is not None:
            status = replace(status, held_by=str(starter))  # a resume begins
        running = status.held_by is not None
        progress = self.progress(name)
        table = status_table(status, position=view.position, running=running, progress=progress)
        return table, view

    def log(self, name: str) -> Path | None:
        """The log of a study, where it is on this machine."""
        path = log_of(self.settings.root, name)
        return path if path.is_file() and not path.is_symlink() else None

    def job_log(self, name: str, *, renew: bool = True) -> str:
        """The last lines of the log of a study's job, as in `JobLogs.end`; empty where studies are
        processes.
        """
        return "" if self._job_logs is None else self._job_logs.end(name, renew=renew)

    def progress(self, name: str, *, renew: bool = True) -> str | None:
        """The last line of the log of a study: how far its training is, or why it ended.

        Args:
            name: The study, which is known to be there.
            renew: As in `JobLogs.end`.
        """
        if text := self.job_log(name, renew=renew):
            return last_line(text)
        path = self.log(name)
        try:
            return None if path is None else last_words(path)
        except OSError:  # it was deleted just now, or is another user's
            return None

    def busy_workers(self, name: str, within_s: float = 60.0) -> dict[str, float]:
        """Worker to its seconds of evaluation a second, in what was recorded lately of a study."""
        seconds = self.database.open_study(name).evaluation_s(within_s)
        return {worker: spent_s / within_s for worker, spent_s in seconds.items()}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = self._studies = None


def _of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_of)]
"""As the argument of a route."""
