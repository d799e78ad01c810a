"""Ray Jobs: what runs on a cluster, by way of its dashboard, from anywhere that reaches it.

A job's driver runs on the cluster's head, so it does not matter what becomes of the terminal that
submitted it. Everything that Ray keeps of a job (command, environment, metadata, log) is shown to
whoever reaches the dashboard; nothing secret may be among it.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard
from urllib.parse import urlsplit

from glora_search.cluster.reaching import check_answers, refused, use_token
from glora_search.study.errors import ClusterError, one_line

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

_STUDY: Final = "glora_search.study"
_VERB: Final = "glora_search.verb"
_ENDED: Final = ("STOPPED", "SUCCEEDED", "FAILED")
_STOP_WAIT_S: Final = 60  # Ray's own 3 s are less than a batch may take to be written
_POLL_S: Final = 0.5
_TALKATIVE: Final = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
_OVERRIDING: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class JobNotFoundError(ClusterError, KeyError):
    """No job of that id, and none of a study of that name."""

    __str__ = Exception.__str__  # a KeyError would quote its message


def is_job_address(address: str | None) -> TypeGuard[str]:
    """Whether an address is that of a dashboard, where studies run as jobs."""
    return address is not None and address.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the cluster tells of a job.

    Args:
        id: As Ray knows it; it begins with the study's name.
        study: The study.
        verb: `launch`, `sweep` or `resume`.
        status: `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`.
        message: Ray's words on how it stands.
        started: Seconds since 1970.
        ended: Seconds since 1970; None while it is under way.
    """

    id: str
    study: str
    verb: str
    status: str
    message: str
    started: float | None
    ended: float | None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status in _ENDED

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "job": self.id,
            "study": self.study,
            "verb": self.verb,
            "status": self.status,
            "message": self.message,
            "started": _iso(self.started),
            "ended": _iso(self.ended),
        }


class Jobs:
    """The studies that run, or ran, as jobs of a cluster.

    Args:
        address: Of the dashboard: `http://HOST:8265`.

    Raises:
        ClusterError: Nothing answers there, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = checked_address(address)
        with _told(self.address):
            from ray.job_submission import JobSubmissionClient

            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)
            with _without(_OVERRIDING):  # an address that was given is the one that counts
                self._client = JobSubmissionClient(self.address)

    def submit(self, verb: str, study: str, command: str, folder: Path) -> str:
        """Start a job; returns its id.

        Args:
            verb: `launch`, `sweep` or `resume`.
            study: The study's name.
            command: For the shell of the cluster's head.
            folder: What the job finds in its working directory.
        """
        with _told(self.address):
            return str(
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=f"{study}-{secrets.token_hex(3)}",
                    metadata={_STUDY: study, _VERB: verb},
                    runtime_env={
                        "working_dir": str(folder),
                        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)},
                    },
                )
            )

    def all(self) -> list[Job]:
        """Every job that is ours, the latest first."""
        with _told(self.address):
            details = self._client.list_jobs()
        jobs = [_job(each) for each in details if each.submission_id and _is_ours(each)]
        return sorted(jobs, key=lambda job: job.started or 0, reverse=True)

    def get(self, name: str) -> Job:
        """The job of that id, or the latest of a study of that name.

        Raises:
            JobNotFoundError: There is none.
        """
        jobs = self.all()
        found = [j for j in jobs if j.id == name] or [j for j in jobs if j.study == name]
        if not found:
            known = ", ".join(job.id for job in jobs[:5]) or "none"
            raise JobNotFoundError(f"no job {name!r} at {self.address}; there are: {known}")
        return found[0]

    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """What the job has written so far; with `follow`, what it writes until it ends as well."""
        shown = 0
        while True:
            over = not follow or self.get(job.id).over  # asked before the log is read
            with _told(self.address):
                text = self._client.get_job_logs(job.id)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if over:
                return
            time.sleep(_POLL_S)

    def stop(self, job: Job, *, wait: bool = True) -> Job:
        """Interrupt a job as Ctrl-C would, and wait until it has ended, unless told not to; what
        had arrived is recorded. One that has ended is left as it is.
        """
        if not job.over:
            with _told(self.address):
                self._client.stop_job(job.id)
        while not (job := self.get(job.id)).over and wait:
            time.sleep(_POLL_S)
        return job


def checked_address(address: str) -> str:
    """A dashboard's address without a slash at its end.

    Raises:
        ClusterError: It is none, or it holds a user or password, which would be shown in messages.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in address:
        raise ClusterError(
            "the dashboard's address is not understood; expected http://HOST:8265, without a path "
            "and without a password (a token goes into RAY_AUTH_TOKEN_PATH)"
        )
    check_answers(host, port or (443 if parts.scheme == "https" else 80), address)
    use_token(host)
    return address.rstrip("/")


def _is_ours(details: JobDetails) -> bool:
    return _STUDY in (details.metadata or {})


def _job(details: JobDetails) -> Job:
    metadata: dict[str, str] = details.metadata or {}
    return Job(
        id=str(details.submission_id),
        study=metadata[_STUDY],
        verb=metadata.get(_VERB, "launch"),
        status=str(getattr(details.status, "value", details.status)),
        message=one_line(details.message or ""),
        started=_seconds(details.start_time),
        ended=_seconds(details.end_time),
    )


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what Ray and its HTTP library raise into one clear line."""
    try:
        from ray.exceptions import AuthenticationError

        yield
    except ClusterError:
        raise
    except ModuleNotFoundError as error:
        raise ClusterError(f"jobs need ray[default], which is not installed: {error}") from error
    except AuthenticationError as error:
        raise refused(address) from error
    except (RuntimeError, OSError, ValueError) as error:  # OSError: those of requests as well
        text = one_line(error, limit=300)
        raise ClusterError(f"the Ray dashboard at {address} cannot do that: {text}") from error


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """The environment for a moment without some variables."""
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)
