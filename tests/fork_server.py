"""Processes of a test's own, forked from one that has the imports done: each costs a fork, not ten
seconds. Process id, standard streams, signals and exit status are its own.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 300.0

# A process has one fork server, and the server one list: whoever adds to it does so here.
PROCESSES: Final = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "fork_server",
        "alembic.config",
        "psycopg",
        "timm",
        "sklearn.datasets",
        "glora_search.cli.study_verbs",
        "glora_search.operations.launching",
        "glora_search.evaluating.ray_actors",
        "glora_search.cli.commands",
        "glora_search.cli.interruption",
        "glora_search.cli.progress_bars",
        "glora_search.recording.table_store",
        "glora_search.cli.study_tables",
    ]
)


class Running:
    """A process that calls a function, under way.

    Args:
        target: The function; it is imported by its name.
        arguments: Its arguments.
        folder: Where the process works, and leaves what it prints.
        environment: Added to this process's.
    """

    def __init__(
        self,
        target: Callable[..., None],
        *arguments: object,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        stem = f"{time.monotonic_ns()}"
        self._output, self._errors = folder / f"stdout-{stem}.txt", folder / f"stderr-{stem}.txt"
        streams = str(self._output), str(self._errors)
        variables = {**(environment or {})}
        self._process = PROCESSES.Process(
            target=_begin, args=(target, arguments, str(folder), streams, variables)
        )
        self._process.start()
        atexit.register(self._end)

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def is_over(self) -> bool:
        return not self._process.is_alive()

    @property
    def output(self) -> str:
        """What it has said on stdout."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def errors(self) -> str:
        """What it has said on stderr."""
        return self._errors.read_text() if self._errors.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def _end(self) -> None:
        """What a failed test has left running would keep this process from its end."""
        if not self.is_over:
            self.kill()

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


def wait_until(condition: Callable[[], bool], running: Running, *, poll_s: float = 0.05) -> bool:
    """Whether it came true before the run was over."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if running.is_over:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come so far: {running.errors[-2000:]}")
        time.sleep(poll_s)
    return True


def glora_search(*words: str) -> None:
    """Be the command line."""
    sys.argv = ["glora-search", *words]
    from glora_search.cli.commands import main

    main()


def script(path: str, *words: str) -> None:
    """Be `python PATH WORDS`."""
    sys.argv = [path, *words]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")


def _begin(
    target: Callable[..., None],
    arguments: tuple[object, ...],
    folder: str,
    streams: tuple[str, str],
    environment: Mapping[str, str],
) -> None:
    for descriptor, path in enumerate(streams, start=1):
        with Path(path).open("w") as stream:
            os.dup2(stream.fileno(), descriptor)
    os.environ.update(environment)
    os.chdir(folder)
    for place in reversed(environment.get("PYTHONPATH", "").split(os.pathsep)):
        if place:
            sys.path.insert(0, place)
            if (Path(place) / "sitecustomize.py").exists():
                importlib.import_module("sitecustomize")  # which installs itself
    target(*arguments)
