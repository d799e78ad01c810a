"""What the commands show of jobs: for people and for programs."""

from __future__ import annotations

import datetime
from typing import Any

from glora_search.cli.summary import Summary
from glora_search.cluster.jobs import Job, Jobs


def submitted_summary(jobs: Jobs, job_id: str, study: str) -> Summary:
    """A job that was just submitted: its id, for programs to take."""
    return Summary(
        document={"job": job_id, "study": study, "address": jobs.address}, lines=(job_id,)
    )


def jobs_summary(jobs: list[Job], address: str) -> Summary:
    """The jobs of a cluster."""
    if not jobs:
        return Summary(document=[], lines=(f"no jobs of glora-search at {address}",))
    return Summary(
        document=[_document(job) for job in jobs],
        title=address,
        columns=("job", "study", "verb", "status", "started", "ended"),
        rows=[
            (job.id, job.study, job.verb, job.status, _when(job.started), _when(job.ended))
            for job in jobs
        ],
    )


def job_summary(job: Job) -> Summary:
    """One job, with what Ray says of how it stands."""
    times = f"started {_when(job.started)}" + (f", ended {_when(job.ended)}" if job.ended else "")
    return Summary(
        document=_document(job),
        lines=(f"{job.id}: {job.verb} of {job.study}, {job.status}; {times}", job.message),
    )


def _document(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "study": job.study,
        "verb": job.verb,
        "status": job.status,
        "message": job.message,
        "started": _iso(job.started),
        "ended": _iso(job.ended),
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
