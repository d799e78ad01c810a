"""The verbs of jobs: logs and stop. `status --address` is among `result_verbs`."""

from __future__ import annotations

from typing import Final

import click

from glora_search.cli import options


@click.command(
    short_help="What a job has written.",
    epilog="""\b
Examples:
  glora-search logs my-study-4f09c2 --address http://head:8265
  glora-search logs my-study --address http://head:8265 --follow
""",
)
@click.argument("job")
@options.dashboard
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
def logs(job: str, address: str, follow: bool) -> None:
    """What a job has written; JOB is its id, or the study whose latest job it is.

    Ctrl-C ends --follow, and leaves the job alone.
    """
    from glora_search.operations.jobs import job_logs

    for text in job_logs(job, address, follow=follow):
        click.echo(text, nl=False)


@click.command(
    short_help="Interrupt a job; it can be resumed.",
    epilog="""\b
Example:
  glora-search stop my-study --address http://head:8265
""",
)
@click.argument("job")
@options.dashboard
@options.as_json
def stop(job: str, address: str, as_json: bool) -> None:
    """Interrupt a job as Ctrl-C would, and wait until it has ended; JOB is its id, or the study
    whose latest job it is. What had arrived is recorded; `resume` goes on from there.
    """
    from glora_search.cli.job_tables import job_output
    from glora_search.operations.jobs import stop_job

    job_output(stop_job(job, address)).show(as_json)


VERBS: Final = (logs, stop)
