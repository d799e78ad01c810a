"""What a run has done so far, as files in its folder, so that a killed run goes on.

DIR/lock               held by the run that works here
DIR/run.json           what kind of run it is
DIR/rows/ROW.json      how a row ended
DIR/rows/ROW.tries     how often it was begun since
DIR/work/ROW/          its output, and what it keeps for its next piece
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RunFolderError(ValueError):
    """A folder in which this run cannot work."""


class RunFolder:
    """The folder of one run.

    Args:
        path: Made where it is not there.
        kind: What must not be mixed in one folder: `gpu` or `rehearsal`.

    Raises:
        RunFolderError: The folder holds a run of another kind, or cannot be written.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        try:
            (path / "rows").mkdir(parents=True, exist_ok=True)
            about = path / "run.json"
            if not about.exists():
                _write(about, {"kind": kind})
            found = json.loads(about.read_text()).get("kind")
        except (OSError, ValueError, AttributeError) as error:
            raise RunFolderError(
                f"{str(path)!r} cannot be used as the folder of a run ({error}); name another one"
            ) from error
        if found != kind:
            raise RunFolderError(
                f"{str(path)!r} holds a run of kind {found!r}, this one is of kind {kind!r}; "
                "name another folder"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works in the folder during the block.

        Raises:
            RunFolderError: Somebody else does.
        """
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunFolderError(
                    f"another run works in {str(self.path)!r}; wait for it, or name another folder"
                ) from error
            yield

    def work(self, row: str) -> Path:
        """Where a row works; made where it is not there."""
        folder = self.path / "work" / row
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def begin(self, row: str) -> int:
        """Note that a row begins; returns how often it was begun before without ending."""
        before = self.tries(row)
        _replace(self._tries(row), f"{before + 1}\n")
        return before

    def tries(self, row: str) -> int:
        """How often a row was begun since it last ended."""
        try:
            return int(self._tries(row).read_text())
        except (OSError, ValueError):
            return 0

    def take_back(self, row: str) -> None:
        """Forget a beginning: it was interrupted by whoever called, so it is no failure."""
        _replace(self._tries(row), f"{max(0, self.tries(row) - 1)}\n")

    def end(self, row: str, record: Mapping[str, Any]) -> None:
        """Keep how a row ended."""
        _write(self._record(row), record)
        self._tries(row).unlink(missing_ok=True)

    def ended(self, row: str) -> dict[str, Any] | None:
        """How a row ended; None where it has not, or its record is damaged."""
        try:
            record = json.loads(self._record(row).read_text())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def forget(self, row: str) -> None:
        """Have a row run again, from its beginning."""
        shutil.rmtree(self.path / "work" / row, ignore_errors=True)
        self._record(row).unlink(missing_ok=True)
        self._tries(row).unlink(missing_ok=True)

    def _record(self, row: str) -> Path:
        return self.path / "rows" / f"{row}.json"

    def _tries(self, row: str) -> Path:
        return self.path / "rows" / f"{row}.tries"


def _write(path: Path, record: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(record, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    """As a whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
