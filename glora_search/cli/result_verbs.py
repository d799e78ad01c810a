"""The verbs that show what a study has found: status, export, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from glora_search.cli import options
from glora_search.cli.output import tell_of_loading
from glora_search.study.format_names import FORMAT_NAMES

if TYPE_CHECKING:
    from glora_search.study.picking import Pick
    from glora_search.study.place_sections import FinetuneKeep


@click.command(
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
@options.storage
@click.option(
    "--address", metavar="http://HOST:8265", help="Show jobs of this cluster instead of studies."
)
@options.as_json
def status(name: str | None, storage: str | None, address: str | None, as_json: bool) -> None:
    """What is in the database, how far it is, the best so far.

    With --address the jobs of a cluster, or the one NAME: its id, or the study whose latest job it
    is.
    """
    if address is not None:
        from glora_search.cli.job_tables import job_output, jobs_output
        from glora_search.operations.jobs import job_status, list_jobs

        if name is None:
            jobs_output(list_jobs(address), address).show(as_json)
        else:
            job_output(job_status(name, address)).show(as_json)
        return
    from glora_search.cli.study_tables import database_output, study_output
    from glora_search.cli.sweep_tables import sweep_output
    from glora_search.operations import list_studies, study_status, sweep_status

    if name is None:
        database_output(list_studies(storage)).show(as_json)
    elif name.endswith("/sweep"):
        sweep_output(sweep_status(name.removesuffix("/sweep"), storage)).show(as_json)
    else:
        study_output(study_status(name, storage)).show(as_json)


@click.command(
    short_help="Write a subnet, or several as one, as a plain vision transformer.",
    epilog="""\b
Examples:
  glora-search export my-study --out my-vit
  glora-search export my-study --trial 42 --out my-vit-42
  glora-search export my-study --pick knee --out my-small-vit
  glora-search export my-study --max-params 5000 --out my-smaller-vit
  glora-search export my-study --average 10 --out my-average
  glora-search export my-study --soup 20 --out my-soup
  glora-search export my-study --finetune-epochs 20 --out my-tuned-vit
  glora-search export my-study --trial 42 --finetune-epochs 20 --finetune-lr 1e-3 --out my-vit-42
  glora-search export my-study --finetune-epochs 25 --finetune-keep average --finetune-runs 4 \\
    --calibrate --out my-long-vit
  glora-search export my-study --format onnx --format pt2 --format hf --out my-vit
""",
)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to write: a directory that is new or empty.",
)
@click.option(
    "--trial",
    type=int,
    help="Number of the trial. [default: the best, or what [export] of the study says]",
)
@options.digest
@options.pick
@options.max_params
@click.option(
    "--average",
    type=click.IntRange(min=2),
    metavar="K",
    help="Average the merged weights of the K best subnets instead.",
)
@click.option(
    "--soup",
    type=click.IntRange(min=2),
    metavar="K",
    help="Average those of the K best subnets that do not raise the val loss instead.",
)
@click.option(
    "--finetune-epochs",
    type=click.IntRange(min=0),
    metavar="N",
    help="Train the subnet on for N epochs. [default: as export.finetune_epochs of the study says]",
)
@click.option(
    "--finetune-lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="LR",
    help="Its peak learning rate. [default: as export.finetune_lr of the study says]",
)
@click.option(
    "--finetune-keep",
    type=click.Choice(["best", "average"]),
    help="Of the fine-tuning, keep the epoch with the lowest val loss, or train at a rate that "
    "stays high and keep the average of the weights over epochs. [default: as "
    "export.finetune_keep of the study says]",
)
@click.option(
    "--finetune-runs",
    type=click.IntRange(min=1),
    metavar="R",
    help="Train it on R times, each time from the inherited weights, and average all of them. "
    "[default: as export.finetune_runs of the study says]",
)
@click.option(
    "--finetune-batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images of a step of the fine-tuning. [default: as export.finetune_batch_size of the "
    "study says, else that of its supernet]",
)
@click.option(
    "--calibrate/--no-calibrate",
    default=None,
    help="Fit a temperature on val, and divide the head by it. [default: as export.calibrate of "
    "the study says]",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMAT_NAMES),
    multiple=True,
    help="Write it in this format too; can be given several times. timm's is always written. "
    "[default: as export.formats of the study says]",
)
@options.storage
@options.as_json
def export(
    name: str,
    out: Path,
    trial: int | None,
    digest: str | None,
    pick: Pick | None,
    max_params: int | None,
    average: int | None,
    soup: int | None,
    finetune_epochs: int | None,
    finetune_lr: float | None,
    finetune_keep: FinetuneKeep | None,
    finetune_runs: int | None,
    finetune_batch_size: int | None,
    calibrate: bool | None,
    formats: tuple[str, ...],
    storage: str | None,
    as_json: bool,
) -> None:
    """Write a subnet, trained on or not, or the average of several, as a plain vision transformer
    that timm alone can load.

    Further formats are checked on validation images before they count as written: onnx
    (model.onnx, with onnxruntime; needs glora-search[onnx]), pt2 (model.pt2, for torch alone), hf
    (README.md: with it the folder is a Hugging Face repository).
    """
    given = {
        "--trial": trial,
        "--digest": digest,
        "--pick": pick,
        "--max-params": max_params,
        "--finetune-epochs": finetune_epochs or None,
        "--average": average,
        "--soup": soup,
    }
    asked = [option for option, value in given.items() if value is not None]
    of_one = [option for option in asked if option != "--finetune-epochs"]  # they go together
    clash = of_one if of_one != ["--pick", "--max-params"] else []
    if len(clash) < 2 and asked and asked[-1] in ("--average", "--soup"):
        clash = asked
    if len(clash) > 1:
        raise click.UsageError(f"{clash[0]} and {clash[-1]} exclude each other")
    tell_of_loading()
    from glora_search.cli.progress_bars import for_stderr
    from glora_search.cli.study_tables import export_output
    from glora_search.operations import export as export_study

    exported = export_study(
        name,
        out,
        trial=trial,
        digest=digest,
        pick=pick,
        max_params=max_params,
        average=average,
        soup=soup,
        finetune_epochs=finetune_epochs,
        finetune_lr=finetune_lr,
        finetune_keep=finetune_keep,
        finetune_runs=finetune_runs,
        finetune_batch_size=finetune_batch_size,
        calibrate=calibrate,
        formats=formats or None,
        storage=storage,
        progress=for_stderr(),
    )
    export_output(exported).show(as_json)


@click.command(
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
@options.storage
def report(name: str, out: Path | None, storage: str | None) -> None:
    """Write pictures and tables of a study as one HTML file that needs no network."""
    from glora_search.operations import write_report

    path = out or Path(f"{name}.html")
    write_report(name, path, storage=storage)
    click.echo(path)


VERBS: Final = (status, export, report)
