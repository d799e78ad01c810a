"""Where the studies of a server run: as processes of this machine, or as jobs of a Ray cluster.

A process is the command line itself in a session of its own, so it outlives the server. Whether a
study runs is not known by its process but by its lease in the database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from glora_search.recording.storage_url import ENVIRONMENT
from glora_search.study.toml_text import toml_text

LOG: Final = "service.log"
"""In a study's folder: what its processes have written."""

STUDY_FILE: Final = "study.toml"
"""In a study's folder: the study as it was launched."""

SECRETS: Final = ("GLORA_SEARCH_SERVER_TOKEN", "GLORA_SEARCH_SERVER_READ_TOKEN")
"""Variables that are the server's alone; those with `_FILE` at their end as well."""

_TAIL: Final = 4096


class Runner(Protocol):
    """Where studies run."""

    def launch(self, name: str, table: dict[str, Any]) -> int | None:
        """Begin to launch a study.

        Args:
            name: Its name.
            table: The study file.

        Returns:
            The id of its process on this machine; None where it runs elsewhere.
        """
        ...

    def resume(self, name: str, overrides: Sequence[str] = ()) -> int | None:
        """Begin to resume a study; returns as `launch`.

        Args:
            name: Its name.
            overrides: `section.key=value`, as `glora_search.resume` accepts them.
        """
        ...

    def check(self) -> None:
        """Raise ClusterError where studies cannot run now."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProcessRunner:
    """Studies as processes of this machine.

    Args:
        root: Below it each study has a folder, with its log.
        storage: The database's URL, which means the same in every working directory.
    """

    root: Path
    storage: str = field(repr=False)

    def launch(self, name: str, table: dict[str, Any]) -> int:
        """As told by `Runner`."""
        folder = self._folder(name)
        (folder / STUDY_FILE).write_text(toml_text(table) + "\n", encoding="utf-8")
        return self._begin(folder, "launch", STUDY_FILE)

    def resume(self, name: str, overrides: Sequence[str] = ()) -> int:
        """As told by `Runner`."""
        words = [word for override in overrides for word in ("--set", override)]
        return self._begin(self._folder(name), "resume", name, *words)

    def export(self, name: str, trial: int, out: Path, lock: int) -> None:
        """Begin to export a subnet of a study.

        Args:
            name: The study.
            trial: Of the subnet.
            out: A directory that is new, in a folder that is there. The log is beside it.
            lock: A file descriptor that the process keeps open as long as it lives.
        """
        words = ("export", name, "--trial", str(trial), "--out", out.name)
        log = out.with_suffix(".log")
        log.unlink(missing_ok=True)
        self._begin(out.parent, *words, log=log.name, keep=(lock,))

    def check(self) -> None:
        """As told by `Runner`: a process can always be started."""

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _begin(self, folder: Path, *words: str, log: str = LOG, keep: tuple[int, ...] = ()) -> int:
        hidden = {*SECRETS, *(f"{name}_FILE" for name in SECRETS)}
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        environment[ENVIRONMENT] = self.storage  # as an argument everybody would see it
        with (folder / log).open("ab") as written:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "glora_search", *words, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=folder,
                env=environment,
                pass_fds=keep,
                start_new_session=True,
            )
        # Somebody has to take note of its end, or it stays as a zombie while the server lives.
        threading.Thread(target=process.wait, daemon=True).start()
        return process.pid


@dataclass(frozen=True, kw_only=True)
class JobRunner:
    """Studies as jobs of a Ray cluster.

    Args:
        address: Of its dashboard.
        storage: The database as jobs are told it; None for that of this process's environment.
    """

    address: str
    storage: str | None = field(default=None, repr=False)

    def launch(self, name: str, table: dict[str, Any]) -> None:
        """As told by `Runner`."""
        from glora_search.operations.jobs import submit

        with _file_of(table) as path:
            submit(path, address=self.address, storage=self.storage, check_paths=False)

    def resume(self, name: str, overrides: Sequence[str] = ()) -> None:
        """As told by `Runner`."""
        from glora_search.operations.jobs import submit_resume

        submit_resume(name, address=self.address, storage=self.storage, overrides=overrides)

    def check_storage(self) -> None:
        """Raise StorageError where jobs could not reach the database, or must not be told it."""
        from glora_search.cluster.submitting import checked_storage

        checked_storage(self.storage)

    def check(self) -> None:
        """As told by `Runner`."""
        from glora_search.cluster.reaching import check_answers

        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        check_answers(parts.hostname or "", port, self.address)


def end_of(log: Path, most: int) -> str:
    """The end of a log: at most so many bytes."""
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - most))
        return written.read().decode("utf-8", "replace")


def last_words(log: Path) -> str | None:
    """The last line of a log that is for people; None where there is none yet."""
    return last_line(end_of(log, _TAIL))


def last_line(text: str) -> str | None:
    """The last line of what a study's process has written that is for people; None without one."""
    lines = text.splitlines()
    # What a verb prints at its end is a document for programs.
    told = [line.strip() for line in lines if line[:1] not in ("", " ", "{", "}")]
    return told[-1][:500] if told else None


@contextmanager
def _file_of(table: dict[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glora-search-") as folder:
        path = Path(folder, STUDY_FILE)
        path.write_text(toml_text(table) + "\n", encoding="utf-8")
        yield path
