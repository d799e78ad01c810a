"""Studies that run as jobs of a Ray cluster: submit them, list them, read their logs, stop them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glora_search.cluster.jobs import Job, JobNotFoundError, Jobs, is_job_address
from glora_search.cluster.submitting import Submission, launch_submission, resume_submission

__all__ = [
    "Job",
    "Submitted",
    "is_job_address",
    "job_log",
    "job_logs",
    "job_status",
    "list_jobs",
    "running_job",
    "stop_job",
    "submit",
    "submit_resume",
]


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job that was just submitted.

    Args:
        job: Its id.
        study: The study.
        address: Of the cluster's dashboard.
    """

    job: str
    study: str
    address: str

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return {"job": self.job, "study": self.study, "address": self.address}


def submit(
    study: Path,
    *,
    address: str,
    verb: str = "launch",
    overrides: Iterable[str] = (),
    storage: str | None = None,
    check_paths: bool = True,
) -> Submitted:
    """Check a study file here, and run it as a job of a cluster.

    Args:
        study: The study file.
        address: Of the cluster's dashboard, `http://HOST:8265`.
        verb: `launch` or `sweep`.
        overrides: `section.key=value`.
        storage: Database URL, or `cluster` for the one that the cluster's head knows.
        check_paths: Whether what the study reads has to be on this machine too.

    Raises:
        StudyFileError: The study file is wrong, or a path in it means nothing on the cluster.
        StorageError: The job could not reach the database, or must not be told its URL.
        ClusterError: Nothing answers at the address, or it refuses.
    """
    submission = launch_submission(study, overrides, storage, check_paths=check_paths, verb=verb)
    return _send(submission, address)


def submit_resume(
    name: str, *, address: str, overrides: Iterable[str] = (), storage: str | None = None
) -> Submitted:
    """Resume a study as a job of a cluster; arguments and errors as in `submit`."""
    return _send(resume_submission(name, overrides, storage), address)


def list_jobs(address: str) -> list[Job]:
    """The jobs of glora-search on a cluster, the latest first."""
    return Jobs(address).all()


def job_status(name: str, address: str) -> Job:
    """The job of that id, or the latest job of a study of that name.

    Raises:
        JobNotFoundError: There is none.
    """
    return Jobs(address).get(name)


def job_logs(name: str, address: str, *, follow: bool = False) -> Iterator[str]:
    """What a job has written; with `follow`, until it ends. `name` as in `job_status`."""
    jobs = Jobs(address)
    yield from jobs.logs(jobs.get(name), follow=follow)


def job_log(name: str, address: str) -> str | None:
    """What the latest job of a study has written so far; None where there is no job of it."""
    try:
        return "".join(job_logs(name, address))
    except JobNotFoundError:
        return None


def running_job(name: str, address: str) -> Job | None:
    """The job that drives a study; None where its latest one has ended, or there was none."""
    try:
        job = Jobs(address).get(name)
    except JobNotFoundError:
        return None
    return None if job.over else job


def stop_job(name: str, address: str, *, wait: bool = True) -> Job:
    """Interrupt a job as Ctrl-C would, and wait for its end unless told not to. `name` as in
    `job_status`.
    """
    jobs = Jobs(address)
    return jobs.stop(jobs.get(name), wait=wait)


def _send(submission: Submission, address: str) -> Submitted:
    jobs = Jobs(address)
    job = submission.send(jobs)
    return Submitted(job=job, study=submission.study, address=jobs.address)
