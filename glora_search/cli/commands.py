"""The command line: verbs of a study. Results go to stdout, progress and logs to stderr.

Exit status: 0; 1, it failed, with one clear line; 2, usage or a wrong study file; 130, interrupted
and resumable. What is slow to import (torch, timm, ray, optuna) is imported by the verb that needs
it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from search_spaces.errors import GLoRASearchError

if TYPE_CHECKING:
    from glora_search.cluster.submitting import Submission
    from glora_search.stages.progress import Progress
    from glora_search.study.sections import StudyFile

Verb = TypeVar("Verb", bound=Callable[..., None])


class Shown(Protocol):
    """The result of a verb."""

    def to_json(self) -> Any:
        """For programs."""

    def render(self) -> None:
        """Print it for people."""


_STORAGE_HELP = (
    "Database URL, such as sqlite:///studies.db or postgresql://user@host/name. "
    "[default: $GLORA_SEARCH_STORAGE, else sqlite:///glora-search.db]"
)

_storage = click.option("--storage", metavar="URL", help=_STORAGE_HELP)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_address = click.option(
    "--address",
    help="Ray to join: auto or ray://HOST:PORT; or http://HOST:8265, to run there as a job. "
    "[default: start one on this machine]",
)
_check_paths = click.option(
    "--check-paths/--no-check-paths",
    default=True,
    help="For a job: whether what the study reads must be on this machine too (a shared file "
    "system). [default: check-paths]",
)
_dashboard = click.option(
    "--address",
    required=True,
    metavar="http://HOST:8265",
    help="Dashboard of the cluster where the job runs.",
)


def _running(overridden: str) -> Callable[[Verb], Verb]:
    """The options of a verb that runs here, or as a job of a cluster.

    Args:
        overridden: What `--set` may override.
    """
    override = click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Override {overridden}."
    )

    def with_options(verb: Verb) -> Verb:
        for option in (_as_json, _address, _storage, override):  # the last is shown first
            verb = option(verb)
        return verb

    return with_options


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  glora-search demo                               see the whole path on handwritten digits
  glora-search example vtab-vit-b16 > study.toml  a commented study file to start from
  glora-search launch study.toml                  train, search, export
  glora-search status                             what is in the database
""",
)
@click.version_option(package_name="glora-search")
@click.option("-v", "--verbose", is_flag=True, help="Log what is going on to stderr.")
def cli(verbose: bool) -> None:
    """Search per-layer GLoRA configurations of a vision transformer, and export the best as a plain
    ViT.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if not verbose:  # timm and others tell much on the way
        logging.getLogger().setLevel(logging.ERROR)
        for name in ("glora_search", "supernet"):
            logging.getLogger(name).setLevel(logging.WARNING)


@cli.command(
    short_help="The whole path on built-in data, in two minutes.",
    epilog="""\b
Examples:
  glora-search demo
  glora-search demo --out /tmp/demo --set search.generations=20
""",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("glora-search-demo"),
    show_default=True,
    help="Folder for all files of the demo.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@_as_json
def demo(out: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """The whole path on built-in data: pretrain, supernet, search, export, compare.

    A small vision transformer is pretrained on the handwritten digits 0-4 and adapted to 5-9. Under
    two minutes on two CPU cores; the pretrained backbone and the supernet are kept for the next
    time.
    """
    _tell_of_loading()
    from glora_search.operations.demo import run_demo

    try:
        with _watched() as progress:
            result = run_demo(out, overrides, progress=progress)
    except KeyboardInterrupt:
        _tell("interrupted; the same command goes on where it was")
        sys.exit(130)
    _show(result, as_json)


@cli.command(short_help="Print a commented study file.")
@click.argument("name", required=False)
def example(name: str | None) -> None:
    """Print a commented study file; without NAME, list those there are."""
    from glora_search.study.examples import example_names, load_example

    click.echo("\n".join(example_names()) if name is None else load_example(name), nl=name is None)


@cli.command(
    short_help="Train (or reuse) the supernet, search it, export.",
    epilog="""\b
Examples:
  glora-search launch study.toml
  glora-search launch study.toml --set search.generations=5 --set study.name=short
  glora-search launch study.toml --storage postgresql://me@db/studies --address auto
  glora-search launch study.toml --storage postgresql://me@db/studies --address http://head:8265
""",
)
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.toml")
@_running("a key of the study file")
@_check_paths
def launch(
    study: Path,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
    check_paths: bool,
    as_json: bool,
) -> None:
    """Train (or reuse) the supernet, search it, and export the winner.

    Ctrl-C stops it; `glora-search resume NAME` goes on where it was.

    With the address of a cluster's dashboard the study is checked here and runs there, as a Ray
    job: its id is printed, and this command ends. The study's paths are then those of the cluster,
    and its database is one that the cluster reaches, or `--storage cluster`: the one that
    $GLORA_SEARCH_STORAGE names on the cluster's head.
    """
    file = _checked(
        "launch",
        study,
        overrides=overrides,
        storage=storage,
        address=address,
        check_paths=check_paths,
        as_json=as_json,
    )
    if file is None:
        return
    _tell_of_loading()
    from glora_search.cli.summary import result_summary
    from glora_search.operations import driving

    with _resumable(file.study.name, storage) as progress:
        result = driving.launch(file, storage=storage, progress=progress)
    _show(result_summary(result), as_json)


@cli.command(
    short_help="Try recipes of the supernet before a launch.",
    epilog="""\b
Examples:
  glora-search sweep study.toml
  glora-search sweep study.toml --set sweep.trials=40 --set 'sweep.epochs=[100, 200]'
  glora-search sweep study.toml --set 'sweep.lr={low=1e-4, high=1e-2}'
  glora-search sweep study.toml --storage postgresql://me@db/studies --address auto
""",
)
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.toml")
@_running("a key of the study file")
@_check_paths
def sweep(
    study: Path,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
    check_paths: bool,
    as_json: bool,
) -> None:
    """Try learning rates, weight decays and numbers of epochs of the supernet, as the section
    [sweep] says, and tell which recipe is best.

    A trial trains a supernet and is scored by the mean loss of random subnets on the validation
    split. Ray Tune runs the trials, Optuna proposes them, ASHA stops what lags behind. They are
    recorded beside the study; Ctrl-C stops the sweep, and the same command goes on with it.

    With the address of a cluster's dashboard it runs there, as a job: see `launch`.
    """
    file = _checked(
        "sweep",
        study,
        overrides=overrides,
        storage=storage,
        address=address,
        check_paths=check_paths,
        as_json=as_json,
    )
    if file is None:
        return
    _tell_of_loading()
    from glora_search.cli.sweep_summary import sweep_summary
    from glora_search.operations.sweeping import driving
    from glora_search.recording.storage_url import shown_url

    try:
        with _watched() as progress:
            found = driving.sweep(file, storage=storage, progress=progress)
    except KeyboardInterrupt:
        _tell(f"interrupted{_swept_so_far(file.study.name, storage)}")
        sys.exit(130)
    words = ["glora-search", "launch", str(study)]
    kept = [override for override in overrides if not override.strip().startswith("sweep.")]
    words += [word for override in kept for word in ("--set", override)]
    if storage is not None:
        words += ["--storage", shown_url(storage)]
    summary = sweep_summary(found, words)
    _show(summary, as_json)


@cli.command(
    short_help="Go on with a study where it stopped.",
    epilog="""\b
Examples:
  glora-search resume my-study
  glora-search resume my-study --set cluster.workers=8
  glora-search resume my-study --storage cluster --address http://head:8265
""",
)
@click.argument("name")
@_running("a key of cluster or export, or another that does not change what is found")
def resume(
    name: str, overrides: tuple[str, ...], storage: str | None, address: str | None, as_json: bool
) -> None:
    """Go on with a study where the database says it stopped; here, or as a job as `launch` does."""
    from glora_search.cluster.jobs import is_job_address

    if is_job_address(address):
        from glora_search.cluster.submitting import resume_submission

        _submit(resume_submission(name, overrides, storage), address, as_json)
        return
    overrides = _with_address(overrides, address)
    _tell_of_loading()
    from glora_search.cli.summary import result_summary
    from glora_search.operations import driving

    with _resumable(name, storage) as progress:
        result = driving.resume(name, overrides=overrides, storage=storage, progress=progress)
    _show(result_summary(result), as_json)


@cli.command(
    short_help="What is in the database, how far, the best so far.",
    epilog="""\b
Examples:
  glora-search status
  glora-search status my-study --json
  glora-search status my-study/sweep
  glora-search status --address http://head:8265
""",
)
@click.argument("name", required=False)
@_storage
@click.option(
    "--address", metavar="http://HOST:8265", help="Show jobs of this cluster instead of studies."
)
@_as_json
def status(name: str | None, storage: str | None, address: str | None, as_json: bool) -> None:
    """What is in the database, how far it is, the best so far.

    With --address the jobs of a cluster, or the one NAME: its id, or the study whose latest job it
    is.
    """
    if address is not None:
        from glora_search.cli.job_summary import job_summary, jobs_summary
        from glora_search.cluster.jobs import Jobs

        jobs = Jobs(address)
        told = jobs_summary(jobs.all(), address) if name is None else job_summary(jobs.get(name))
        _show(told, as_json)
        return
    from glora_search.cli.summary import database_summary, study_summary
    from glora_search.cli.sweep_summary import sweep_status

    if name is None:
        summary = database_summary(storage)
    elif name.endswith("/sweep"):
        summary = sweep_status(name.removesuffix("/sweep"), storage)
    else:
        summary = study_summary(name, storage)
    _show(summary, as_json)


@cli.command(
    short_help="What a job has written.",
    epilog="""\b
Examples:
  glora-search logs my-study-4f09c2 --address http://head:8265
  glora-search logs my-study --address http://head:8265 --follow
""",
)
@click.argument("job")
@_dashboard
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
def logs(job: str, address: str, follow: bool) -> None:
    """What a job has written; JOB is its id, or the study whose latest job it is.

    Ctrl-C ends --follow, and leaves the job alone.
    """
    from glora_search.cluster.jobs import Jobs

    jobs = Jobs(address)
    for text in jobs.logs(jobs.get(job), follow=follow):
        click.echo(text, nl=False)


@cli.command(
    short_help="Interrupt a job; it can be resumed.",
    epilog="""\b
Example:
  glora-search stop my-study --address http://head:8265
""",
)
@click.argument("job")
@_dashboard
@_as_json
def stop(job: str, address: str, as_json: bool) -> None:
    """Interrupt a job as Ctrl-C would, and wait until it has ended; JOB is its id, or the study
    whose latest job it is. What had arrived is recorded; `resume` goes on from there.
    """
    from glora_search.cli.job_summary import job_summary
    from glora_search.cluster.jobs import Jobs

    jobs = Jobs(address)
    told = job_summary(jobs.stop(jobs.get(job)))
    _show(told, as_json)


@cli.command(
    short_help="Write a subnet as a plain vision transformer.",
    epilog="""\b
Examples:
  glora-search export my-study --out my-vit
  glora-search export my-study --trial 42 --out my-vit-42
""",
)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to write: a directory that is new or empty.",
)
@click.option("--trial", type=int, help="Number of the trial. [default: the best]")
@_storage
@_as_json
def export(name: str, out: Path, trial: int | None, storage: str | None, as_json: bool) -> None:
    """Write a subnet as a plain vision transformer that timm alone can load."""
    _tell_of_loading()
    from glora_search.cli.summary import export_summary
    from glora_search.stages import exporting
    from glora_search.stages.progress import for_stderr

    exported = exporting.export(name, out, trial=trial, storage=storage, progress=for_stderr())
    summary = export_summary(exported)
    _show(summary, as_json)


@cli.command(
    short_help="Pictures and tables of a study as one HTML file.",
    epilog="""\b
Example:
  glora-search report my-study --out my-study.html
""",
)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The HTML file. [default: NAME.html]",
)
@_storage
def report(name: str, out: Path | None, storage: str | None) -> None:
    """Write pictures and tables of a study as one HTML file that needs no network."""
    from glora_search.recording import Database
    from glora_search.recording.storage_url import resolve_storage
    from glora_search.reporting import write_report

    path = out or Path(f"{name}.html")
    with Database.open(resolve_storage(storage), create=False) as database:
        write_report(database.open_study(name), path)
    click.echo(path)


def _checked(
    verb: str,
    study: Path,
    *,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
    check_paths: bool,
    as_json: bool,
) -> StudyFile | None:
    """The checked study that `verb` is to run here; None where it was sent to a cluster."""
    from glora_search.cluster.jobs import is_job_address
    from glora_search.study.file import load_study_file

    file = load_study_file(study, _with_address(overrides, address))
    address = address or file.cluster.address
    if not is_job_address(address):
        return file
    from glora_search.cluster.submitting import launch_submission

    submission = launch_submission(study, overrides, storage, check_paths=check_paths, verb=verb)
    _submit(submission, address, as_json)
    return None


def _submit(submission: Submission, address: str, as_json: bool) -> None:
    """Send a study to a cluster, print the job's id, and tell how to go on."""
    from glora_search.cli.job_summary import submitted_summary
    from glora_search.cluster.jobs import Jobs

    jobs = Jobs(address)
    job = submission.send(jobs)
    told = submitted_summary(jobs, job, submission.study)
    _show(told, as_json)
    for verb in ("status", "logs", "stop"):
        _tell(f"  glora-search {verb} {job} --address {jobs.address}")


@contextlib.contextmanager
def _watched() -> Iterator[Progress]:
    """Progress on stderr, where what libraries print goes as well (Ray tells of lost workers on
    stdout, which is for results), and interruptions that do not get lost.
    """
    from glora_search.cli.interruption import Interruptible
    from glora_search.stages.progress import for_stderr

    with contextlib.redirect_stdout(sys.stderr), Interruptible(for_stderr()) as progress:
        yield progress


@contextlib.contextmanager
def _resumable(name: str, storage: str | None) -> Iterator[Progress]:
    """Progress on stderr; on an interruption, tell how to go on, if there is something to."""
    try:
        with _watched() as progress:
            yield progress
    except KeyboardInterrupt:
        _tell(f"interrupted{_how_to_go_on(name, storage)}")
        sys.exit(130)


def _how_to_go_on(name: str, storage: str | None) -> str:
    from glora_search.recording import Database
    from glora_search.recording.storage_url import resolve_storage

    try:
        with Database.open(resolve_storage(storage), create=False) as database:
            done = database.open_study(name).tally().n_complete
            option = f" --storage '{database.shown}'" if storage else ""
    except GLoRASearchError:
        return " before anything was recorded; launch again"
    return f"; {done} subnets are recorded. Go on with: glora-search resume {name}{option}"


def _swept_so_far(name: str, storage: str | None) -> str:
    from glora_search.recording import Database
    from glora_search.recording.storage_url import resolve_storage

    try:
        with Database.open(resolve_storage(storage), create=False) as database:
            done = len(database.open_sweep(name).trials())
    except GLoRASearchError:
        return " before anything was recorded"
    return f"; trials recorded: {done}. The same command goes on"


def _with_address(overrides: tuple[str, ...], address: str | None) -> tuple[str, ...]:
    return overrides if address is None else (*overrides, f'cluster.address="{address}"')


def _show(result: Shown, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        result.render()


def _tell_of_loading() -> None:
    """Importing torch, timm and ray takes seconds, in which nothing else would be seen."""
    _tell("loading torch, timm and ray ...")


def _tell(line: str) -> None:
    click.echo(line, err=True)


def main() -> None:
    """The console script."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stopped:
        sys.exit(stopped.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _tell("interrupted")
        sys.exit(130)
    except GLoRASearchError as error:
        from glora_search.study.errors import StudyFileError

        _tell(f"error: {error}")
        sys.exit(2 if isinstance(error, StudyFileError) else 1)


if __name__ == "__main__":
    main()
