"""Jobs of a cluster as tables."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from glora_search.cli.output import Output
from glora_search.operations.jobs import Job, Submitted


def submitted_output(submitted: Submitted) -> Output:
    """A job that was just submitted: its id alone, for programs to take."""
    return Output(document=submitted.to_json(), lines=(submitted.job,))


def jobs_output(jobs: Sequence[Job], address: str) -> Output:
    """The jobs of a cluster."""
    if not jobs:
        return Output(document=[], lines=(f"no jobs of glora-search at {address}",))
    return Output(
        document=[job.to_json() for job in jobs],
        title=address,
        columns=("job", "study", "verb", "status", "started", "ended"),
        rows=[
            (job.id, job.study, job.verb, job.status, _when(job.started), _when(job.ended))
            for job in jobs
        ],
    )


def job_output(job: Job) -> Output:
    """One job, with Ray's message on its state."""
    times = f"started {_when(job.started)}" + (f", ended {_when(job.ended)}" if job.ended else "")
    return Output(
        document=job.to_json(),
        lines=(f"{job.id}: {job.verb} of {job.study}, {job.status}; {times}", job.message),
    )


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
