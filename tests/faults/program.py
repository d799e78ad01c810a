"""The program as a process: launched, watched through the database, and disturbed."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fork_server import Running, glora_search
from tiny_study import found, write_study

from glora_search.recording import Database
from glora_search.study.errors import StorageError, StudyNotFoundError

HOOKS: Final = Path(__file__).parent / "hooks"


class Program:
    """A tiny study, and whoever drives it.

    Args:
        folder: New; for its files.
        storage: The database's URL; by default an SQLite file in the folder.
        fault: What hooks/sitecustomize.py is to do.
        sections: Keys of the study file that differ from the tiny study's.
    """

    def __init__(
        self,
        folder: Path,
        sections: dict[str, dict[str, Any]],
        *,
        storage: str | None = None,
        fault: dict[str, Any] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.storage = storage or f"sqlite:///{folder / 'studies.db'}"
        self.name = str(sections.get("study", {}).get("name", "tiny"))
        runs = Path(sections.get("study", {}).get("directory", folder / "runs"))
        self.export = runs / self.name / "export"
        if "export" in sections:
            self.export = Path(sections["export"]["directory"])
        self._file = write_study(folder, **sections)
        self._environment = _environment(fault)

    def launch(self, *words: str) -> Running:
        return self._run("launch", str(self._file), *words)

    def resume(self, *words: str) -> Running:
        return self._run("resume", self.name, *words)

    def _run(self, *words: str) -> Running:
        words = (*words, "--storage", self.storage)
        return Running(glora_search, *words, folder=self.folder, environment=self._environment)

    def with_fault(self, fault: dict[str, Any] | None) -> Program:
        """The same study, driven with another fault."""
        other = copy.copy(self)
        other._environment = _environment(fault)
        return other

    def error_types(self) -> list[str | None]:
        """Of all trials; None of one that did not fail."""
        with Database.open(self.storage, create=False) as database:
            trials = database.open_study(self.name).trials().values()
            return [outcome.error_type for outcome in trials]

    def exists(self) -> bool:
        """Whether the study is in the database."""
        try:
            with Database.open(self.storage, create=False) as database:
                database.open_study(self.name)
        except (StorageError, StudyNotFoundError):
            return False
        return True

    def recorded(self) -> list[tuple[Any, ...]]:
        """What the database says was found; empty where there is no study yet, or no answer."""
        try:
            with Database.open(self.storage, create=False) as database:
                return self._found_in(database)
        except (StorageError, StudyNotFoundError):
            return []

    def _found_in(self, database: Database) -> list[tuple[Any, ...]]:
        return found(list(database.open_study(self.name).trials().values()))

    def holder(self) -> int | None:
        """The process that holds the study."""
        try:
            with Database.open(self.storage, create=False) as database:
                holder = database.open_study(self.name).holder
                return None if holder is None else holder.pid
        except (StorageError, StudyNotFoundError):
            return None

    @contextlib.contextmanager
    def watched(self) -> Iterator[set[tuple[Any, ...]]]:
        """Everything that the database has said during the block: it may not be lost any more."""
        reported: set[tuple[Any, ...]] = set()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                with (
                    contextlib.suppress(StorageError),
                    Database.open(self.storage, create=False) as database,
                ):
                    while not over.wait(0.2):
                        with contextlib.suppress(StudyNotFoundError):
                            reported.update(self._found_in(database))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield reported
        finally:
            over.set()
            thread.join()


def _environment(fault: dict[str, Any] | None) -> dict[str, str]:
    environment: dict[str, str] = {}
    if fault:
        paths = [str(HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["GLORA_SEARCH_TEST_FAULT"] = json.dumps(fault)
    return environment
