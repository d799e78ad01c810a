"""The program as a process: launched, watched through the database, and disturbed.

Each is forked from a server that has torch, timm and Ray imported, and runs the command line's
`main` with a process id, standard streams and signals of its own: it costs a fork, not ten seconds.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tiny_study import found, write_study

from glora_search.errors import StorageError, StudyNotFoundError
from glora_search.recording import Database

HOOKS: Final = Path(__file__).parent / "hooks"
PATIENCE_S: Final = 300.0
_POLL_S: Final = 0.05

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "program",
        "alembic.config",
        "psycopg",
        "timm",
        "glora_search.driving",
        "glora_search.evaluating.ray_actors",
        "glora_search.interruption",
        "glora_search.recording.table_store",
        "glora_search.summary",
    ]
)


class Running:
    """One run of `glora-search`, under way."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._errors = folder / f"stderr-{time.monotonic_ns()}.txt"
        self._process = _PROCESSES.Process(
            target=_main, args=(words, str(folder), str(self._errors), environment)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def is_over(self) -> bool:
        return not self._process.is_alive()

    @property
    def errors(self) -> str:
        """What it has said on stderr."""
        return self._errors.read_text() if self._errors.exists() else ""

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        self._process.join(PATIENCE_S)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"it does not end: {self.errors[-2000:]}")
        return self._process.exitcode

    def succeed(self) -> None:
        """Wait, and insist that it ended well."""
        if status := self.wait():
            raise AssertionError(f"exit status {status}: {self.errors[-2000:]}")

    def fail(self, *words: str) -> str:
        """Wait, and insist on status 1 and one clear line that holds `words`; returns the line."""
        status = self.wait()
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        if status != 1 or len(lines) != 1 or "Traceback" in self.errors:
            raise AssertionError(f"exit status {status}: {self.errors[-2000:]}")
        if not any(word in lines[0] for word in words):
            raise AssertionError(f"not told: {words}, but {lines[0]}")
        return lines[0]


def _main(words: list[str], folder: str, errors: str, environment: dict[str, str]) -> None:
    """Be `glora-search`, in a process that a fork server has made."""
    with Path(errors).open("w") as stream:
        os.dup2(stream.fileno(), 2)
        os.dup2(stream.fileno(), 1)
    os.environ.update(environment)
    os.chdir(folder)
    if str(HOOKS) in environment.get("PYTHONPATH", ""):
        sys.path.insert(0, str(HOOKS))
        importlib.import_module("sitecustomize")  # which installs itself
    sys.argv = ["glora-search", *words]
    from glora_search.cli import main

    main()


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
        return Running([*words, "--storage", self.storage], self.folder, self._environment)

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
                return found(list(database.open_study(self.name).trials().values()))
        except (StorageError, StudyNotFoundError):
            return []

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
                reported.update(self.recorded())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield reported
        finally:
            over.set()
            thread.join()


def _environment(fault: dict[str, Any] | None) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": "1"}
    if fault:
        paths = [str(HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["GLORA_SEARCH_TEST_FAULT"] = json.dumps(fault)
    return environment


def wait_until(condition: Callable[[], bool], running: Running) -> bool:
    """Whether it came true before the run was over."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if running.is_over:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come so far: {running.errors[-2000:]}")
        time.sleep(_POLL_S)
    return True
