"""From a study to a job: what is checked before it is sent to a cluster, and what is sent.

The driver of a job runs on the cluster's head. So every path of the study is one of the cluster's
machines, and the database is one that the head can reach.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from glora_search.cluster.jobs import Jobs
from glora_search.recording.storage_url import ENVIRONMENT, parse_url
from glora_search.study import path_keys
from glora_search.study.errors import StorageError, StudyFileError
from glora_search.study.reading import apply_overrides, check_overrides, load_study_file

OF_THE_CLUSTER: Final = "cluster"
"""As --storage: the URL in the environment of the cluster's head."""

_FILE: Final = "study.toml"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A study that may be sent.

    Args:
        verb: `launch`, `sweep` or `resume`.
        study: The study's name.
        storage: Its database: a URL without a password, or `cluster`.
        overrides: `section.key=value`.
        text: The study file; None for `resume`.
    """

    verb: str
    study: str
    storage: str
    overrides: tuple[str, ...] = ()
    text: str | None = None

    @property
    def command(self) -> str:
        """What the shell of the cluster's head runs; everybody who reaches the dashboard sees
        it.
        """
        target = self.study if self.text is None else _FILE
        words = ["python", "-m", "glora_search", self.verb, target, "--address", "auto"]
        for override in self.overrides:
            words += ["--set", override]
        needed = ""
        if self.storage == OF_THE_CLUSTER:
            needed = f': "${{{ENVIRONMENT}:?is not set on the head of this cluster}}" && '
        else:
            words += ["--storage", self.storage]
        return f"{needed}exec {shlex.join(words)}"  # exec: a stop reaches it, and not a shell

    def send(self, jobs: Jobs) -> str:
        """Start the job; returns its id."""
        with tempfile.TemporaryDirectory(prefix="glora-search-") as name:
            folder = Path(name)
            (folder / _FILE).write_text(self.text or "", encoding="utf-8")
            return jobs.submit(self.verb, self.study, self.command, folder)


def launch_submission(
    path: Path,
    overrides: Iterable[str],
    storage: str | None,
    *,
    check_paths: bool = True,
    verb: str = "launch",
) -> Submission:
    """A launch that may be sent, or a sweep.

    Args:
        path: The study file.
        overrides: `section.key=value`.
        storage: Database URL, or `cluster`.
        check_paths: Whether what the study reads has to be on this machine too, under the same
            path: it is on a shared file system. Without it only the job can tell.
        verb: `launch` or `sweep`.

    Raises:
        StudyFileError: The file is wrong, or a path of it would mean something else on the cluster,
            or is not there.
        StorageError: The database is not one that the job could reach or that may be told to it.
    """
    overrides = tuple(overrides)
    file = load_study_file(path, overrides)
    text = path.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    apply_overrides(table, overrides)
    mistakes = list(_mistakes_in_paths(table, check_paths=check_paths))
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise StudyFileError(f"{path} has {count} for a job:\n" + "\n".join(mistakes))
    return Submission(
        verb=verb,
        study=file.study.name,
        storage=checked_storage(storage),
        overrides=overrides,
        text=text,
    )


def resume_submission(name: str, overrides: Iterable[str], storage: str | None) -> Submission:
    """A resume that may be sent; errors as in `launch_submission`."""
    overrides = tuple(overrides)
    check_overrides(overrides)
    return Submission(
        verb="resume", study=name, storage=checked_storage(storage), overrides=overrides
    )


def checked_storage(storage: str | None) -> str:
    """The database of a job, in a form in which it may be told to it.

    Raises:
        StorageError: None was given, it is a file of this machine, or its URL holds a password.
    """
    storage = storage or os.environ.get(ENVIRONMENT)
    if storage is None:
        raise StorageError(
            "a job needs a database that the cluster's head can reach: give "
            f"--storage postgresql://USER@HOST/NAME, or --storage {OF_THE_CLUSTER} where the head "
            f"has one in ${ENVIRONMENT}"
        )
    if storage == OF_THE_CLUSTER:
        return storage
    url = parse_url(storage)
    if url.sqlite_file is not None:
        raise StorageError(
            f"{url.shown} is a file of this machine, and a job runs on the cluster's head; give "
            f"--storage postgresql://USER@HOST/NAME, or --storage {OF_THE_CLUSTER}"
        )
    if url.url.password or any("pass" in key.lower() for key in url.url.query):
        raise StorageError(
            f"{url.shown}: whoever reaches Ray's dashboard sees a job's database URL; leave the "
            "password out, and put it on the cluster's head into the file that PGPASSFILE or "
            "PGSERVICEFILE names (~/.pgpass by default), or give the head the whole URL in "
            f"${ENVIRONMENT} and use --storage {OF_THE_CLUSTER}"
        )
    return storage


def _mistakes_in_paths(table: Mapping[str, Any], *, check_paths: bool) -> Iterable[str]:
    for key in sorted((*path_keys.READ, *path_keys.WRITTEN)):
        given = _value(table, key)
        if given is None:
            if key == "study.directory":
                yield (
                    f"  {key}: missing; its default is relative to this working directory; give a "
                    "directory of a file system that all machines of the cluster share"
                )
            continue
        path = Path(str(given))
        if key == "cluster.artifacts" and "://" in str(given):
            continue  # the same from everywhere; the job tries it first
        if not path.is_absolute():
            yield (
                f"  {key} = {str(given)!r}: relative to this working directory, and the job runs "
                "elsewhere; give an absolute path that is the same on all machines of the cluster"
            )
        elif check_paths and key in path_keys.READ and not path.exists():
            yield (
                f"  {key} = {str(given)!r}: not there; if it is on the cluster and not here, add "
                "--no-check-paths"
            )


def _value(table: Mapping[str, Any], key: str) -> Any:
    value: Any = table
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
