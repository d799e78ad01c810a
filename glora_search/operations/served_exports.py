"""Exports of any subnet of a study that a server is asked for, beside the one that ends a search.

Each is made by a process on the server's machine, which runs `glora-search export`. The state is in
files below the study's folder, so all servers that share the folder report the same:

    picked/DIGEST/      an export; it appears whole
    picked/DIGEST.log   what the process that makes it, or that failed to, has written
    picked/lock         locked by the process while it lives; holds the digest of its subnet
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from glora_search.operations.following import StudyView
from glora_search.operations.running import ProcessRunner, last_words
from glora_search.study.errors import StudyHeldError, StudyNotRunningError, SubnetNotFoundError
from glora_search.study.finalists import from_attributes
from glora_search.study.picking import Pick, of_digest, picked

FOLDER: Final = "picked"
"""In a study's folder: where these exports are."""

_DIGITS: Final = 16  # of a digest, as a name
_LOCK: Final = "lock"
_LOOKS: Final = 10
_LOOK_S: Final = 0.05

ExportState = Literal["absent", "running", "ready", "failed"]


@dataclass(frozen=True, kw_only=True)
class ServedExport:
    """The export of one subnet.

    Args:
        trial: Optuna's number.
        digest: Of the subnet.
        n_params: Trainable adapter scalars.
        state: `absent` where nobody has asked for it.
        problem: Why it failed; None unless it did.
        directory: Where it is, or will be.
    """

    trial: int
    digest: str
    n_params: int
    state: ExportState
    problem: str | None
    directory: Path

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "trial": self.trial,
            "digest": self.digest,
            "n_params": self.n_params,
            "state": self.state,
            "problem": self.problem,
        }


def wanted_trial(
    view: StudyView, *, digest: str | None, pick: Pick | None, max_params: int | None
) -> int:
    """The number of the subnet that is asked for, as `glora_search.export` understands it.

    Raises:
        SubnetNotFoundError: There is none, or it failed.
        InvalidConfigError: A knee of one objective.
    """
    name, trials = view.record.name, view.trials
    if digest is not None:
        number = of_digest(name, trials, digest)
    else:
        finalists = from_attributes(view.attributes)
        objectives = view.record.objectives
        number = picked(name, trials, objectives, finalists, pick=pick, max_params=max_params)
    if trials[number].failed:
        raise SubnetNotFoundError(
            f"trial {number} of study {name!r} failed ({trials[number].error_type}): nothing to "
            "export"
        )
    return number


def served_export(root: Path, view: StudyView, trial: int) -> ServedExport:
    """How the export of a subnet stands.

    Args:
        root: Below it each study has a folder.
        view: The study.
        trial: Of the subnet.
    """
    candidate = view.trials[trial].candidate
    place = _Place(root, view, candidate.subnet.digest)
    state, problem = place.state()
    return ServedExport(
        trial=trial,
        digest=candidate.subnet.digest,
        n_params=candidate.n_params,
        state=state,
        problem=problem,
        directory=place.directory,
    )


def served_exports(root: Path, view: StudyView) -> list[ServedExport]:
    """The exports of a study that are there, that are being made, or that failed; by trial."""
    folder = root / view.record.name / FOLDER
    names = {path.stem for path in folder.glob("*.log")} if folder.is_dir() else set()
    numbers: dict[str, int] = {}
    for number, outcome in view.trials.items():
        numbers.setdefault(outcome.candidate.subnet.digest[:_DIGITS], number)
    found = [served_export(root, view, numbers[name]) for name in names & numbers.keys()]
    return sorted((e for e in found if e.state != "absent"), key=lambda export: export.trial)


def begin_export(root: Path, view: StudyView, trial: int, runner: ProcessRunner) -> ServedExport:
    """Begin to make the export of a subnet, unless it is there or is being made.

    Args:
        root: As in `served_export`.
        view: Likewise.
        trial: Likewise.
        runner: Where the process runs.

    Raises:
        StudyNotRunningError: The study has no trained supernet yet, or it is elsewhere.
        StudyHeldError: Another export of the study is being made.
    """
    name, before = view.record.name, served_export(root, view, trial)
    if before.state in ("ready", "running"):
        return before
    if (problem := why_not(view)) is not None:
        raise StudyNotRunningError(problem)
    place = _Place(root, view, before.digest)
    folder = place.directory.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock:
        if lock is not None and not place.is_ready():  # by now
            lock.truncate(0)
            lock.write(place.directory.name.encode())
            lock.flush()
            if place.directory.is_dir():  # of a study of that name that is no more
                shutil.rmtree(place.directory)
            runner.export(name, trial, place.directory, lock.fileno())
    found = served_export(root, view, trial)
    if lock is None and found.state not in ("ready", "running"):
        raise StudyHeldError(
            f"another export of study {name!r} is being made, of subnet {_working_at(folder)}; ask "
            "again once it is there"
        )
    return found


def why_not(view: StudyView) -> str | None:
    """Why no subnet of a study can be exported on this machine; None if it can.

    The supernet would be trained here if it were missing, as where a search begins.
    """
    name, attributes = view.record.name, view.attributes
    if "supernet" not in (attributes.get("fingerprints") or {}):
        return f"study {name!r} has no trained supernet yet; resume it first"
    study = attributes.get("study") or {}
    if (study.get("cluster") or {}).get("artifacts") is not None:
        return None  # the process fetches it
    own = Path((study.get("study") or {}).get("directory") or "", "supernets")
    # Its place is recorded at the end of a search; before that it is in the study's directory.
    given = (study.get("supernet") or {}).get("checkpoint") or attributes.get("supernet")
    if Path(given).is_file() if given else any(own.glob("*.safetensors")):
        return None
    return (
        f"the supernet of study {name!r} is not on the server's machine ({given or own}); where it "
        f"is, run: glora-search export {name} --digest DIGEST --out DIR"
    )


def is_exporting(root: Path, name: str) -> bool:
    """Whether a process makes an export of a study."""
    return _working_at(root / name / FOLDER) is not None


class _Place:
    """Where the export of a subnet is, or will be."""

    def __init__(self, root: Path, view: StudyView, digest: str) -> None:
        self.directory = root / view.record.name / FOLDER / digest[:_DIGITS]
        self._supernet = (view.attributes.get("fingerprints") or {}).get("supernet")

    def state(self) -> tuple[ExportState, str | None]:
        """How it stands, and why it failed."""
        if _working_at(self.directory.parent) == self.directory.name:
            return "running", None
        if self.is_ready():
            return "ready", None
        log = self.directory.with_suffix(".log")
        if self.directory.is_dir() or not log.is_file():
            return "absent", None
        return "failed", last_words(log) or "its process was killed"

    def is_ready(self) -> bool:
        """Whether it is there, and of this study, not of another one of its name before it."""
        try:
            told = json.loads((self.directory / "subnet.json").read_bytes())
            found: object = told["fingerprints"]["supernet"]
        except (OSError, ValueError, LookupError, TypeError):
            return False
        return found == self._supernet


def _working_at(folder: Path) -> str | None:
    """The digest of the subnet that a process is exporting; None if no process exports."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read(_DIGITS).decode("ascii", "replace")
    except FileNotFoundError:
        pass
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[Any]:
    """The lock of a study's exports, for the block and for whoever inherits it; None where somebody
    has it.
    """
    with (folder / _LOCK).open("ab") as lock:
        for _ in range(_LOOKS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # for an instant, if somebody only looks whether it is locked
                time.sleep(_LOOK_S)
                continue
            yield lock
            return
    yield None
