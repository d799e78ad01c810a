"""The verbs that run a study: demo, example, launch, sweep, resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from glora_search.cli import options
from glora_search.cli.output import tell, tell_of_loading
from glora_search.cli.watching import study_so_far, sweep_so_far, watched

if TYPE_CHECKING:
    from glora_search.operations.jobs import Submitted
    from glora_search.study.study_file import StudyFile


@click.command(
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
@options.overrides("a key")
@options.as_json
def demo(out: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """The whole path on built-in data: pretrain, supernet, search, export, compare.

    A small vision transformer is pretrained on the handwritten digits 0-4 and adapted to 5-9. Under
    two minutes on two CPU cores; the pretrained backbone and the supernet are kept for the next
    time.
    """
    tell_of_loading()
    from glora_search.cli.study_tables import demo_output
    from glora_search.operations import run_demo

    with watched(lambda: "; the same command goes on where it was") as progress:
        result = run_demo(out, overrides, progress=progress)
    demo_output(result).show(as_json)


@click.command(short_help="Print a commented study file.")
@click.argument("name", required=False)
def example(name: str | None) -> None:
    """Print a commented study file; without NAME, list those there are."""
    from glora_search.study.examples import example_names, load_example

    click.echo("\n".join(example_names()) if name is None else load_example(name), nl=name is None)


@click.command(
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
@options.running("a key of the study file")
@options.check_paths
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
    file = _study_to_run_here("launch", study, overrides, storage, address, check_paths, as_json)
    if file is None:
        return
    tell_of_loading()
    from glora_search.cli.study_tables import search_output
    from glora_search.operations import launch as launch_study

    with watched(lambda: study_so_far(file.study.name, storage)) as progress:
        result = launch_study(file, storage=storage, progress=progress)
    search_output(result).show(as_json)


@click.command(
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
@options.running("a key of the study file")
@options.check_paths
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
    file = _study_to_run_here("sweep", study, overrides, storage, address, check_paths, as_json)
    if file is None:
        return
    tell_of_loading()
    from glora_search.cli.sweep_tables import sweep_output
    from glora_search.operations import sweep as sweep_recipes
    from glora_search.recording.storage_url import shown_url

    with watched(lambda: sweep_so_far(file.study.name, storage)) as progress:
        found = sweep_recipes(file, storage=storage, progress=progress)
    words = ["glora-search", "launch", str(study)]
    kept = [override for override in overrides if not override.strip().startswith("sweep.")]
    words += [word for override in kept for word in ("--set", override)]
    if storage is not None:
        words += ["--storage", shown_url(storage)]
    sweep_output(found, words).show(as_json)


@click.command(
    short_help="Go on with a study where it stopped.",
    epilog="""\b
Examples:
  glora-search resume my-study
  glora-search resume my-study --set cluster.workers=8
  glora-search resume my-study --storage cluster --address http://head:8265
""",
)
@click.argument("name")
@options.running("a key of cluster or export, or another that does not change what is found")
def resume(
    name: str, overrides: tuple[str, ...], storage: str | None, address: str | None, as_json: bool
) -> None:
    """Go on with a study where the database says it stopped; here, or as a job as `launch` does."""
    from glora_search.operations.jobs import is_job_address, submit_resume

    if is_job_address(address):
        submitted = submit_resume(name, address=address, overrides=overrides, storage=storage)
        _show_submitted(submitted, as_json)
        return
    tell_of_loading()
    from glora_search.cli.study_tables import search_output
    from glora_search.operations import resume as resume_study

    with watched(lambda: study_so_far(name, storage)) as progress:
        result = resume_study(
            name,
            overrides=_with_address(overrides, address),
            storage=storage,
            progress=progress,
        )
    search_output(result).show(as_json)


VERBS: Final = (demo, example, launch, sweep, resume)


def _study_to_run_here(
    verb: str,
    study: Path,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
    check_paths: bool,
    as_json: bool,
) -> StudyFile | None:
    """The checked study; None where it was submitted to a cluster instead."""
    from glora_search.operations.jobs import is_job_address, submit
    from glora_search.study.reading import load_study_file

    file = load_study_file(study, _with_address(overrides, address))
    address = address or file.cluster.address
    if not is_job_address(address):
        return file
    submitted = submit(
        study,
        address=address,
        verb=verb,
        overrides=overrides,
        storage=storage,
        check_paths=check_paths,
    )
    _show_submitted(submitted, as_json)
    return None


def _show_submitted(submitted: Submitted, as_json: bool) -> None:
    """Print a job's id to stdout, and to stderr how to follow it."""
    from glora_search.cli.job_tables import submitted_output

    submitted_output(submitted).show(as_json)
    for verb in ("status", "logs", "stop"):
        tell(f"  glora-search {verb} {submitted.job} --address {submitted.address}")


def _with_address(overrides: tuple[str, ...], address: str | None) -> tuple[str, ...]:
    return overrides if address is None else (*overrides, f'cluster.address="{address}"')
