"""The suites of files below `bench`: vtab, few-shot, domains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from glora_search.cli import bench_options, options
from glora_search.cli.options import Verb
from glora_search.cli.output import tell_of_loading
from glora_search.cli.watching import watched


def _suite_options(verb: Verb) -> Verb:
    """What every suite of files takes besides its choice of tasks."""
    for option in reversed(
        (
            click.option(
                "--study",
                type=click.Path(path_type=Path),
                metavar="FILE.toml",
                help="Study file from which all but [data] is taken. [default: the example "
                "vtab-vit-b16]",
            ),
            options.overrides("a key of that study"),
            bench_options.methods,
            click.option("--seeds", type=click.IntRange(1), default=3, show_default=True),
            bench_options.epochs,
            bench_options.sweep,
            bench_options.reference,
            click.option(
                "--workers",
                type=click.IntRange(0),
                help="Runs at a time, on Ray; 0 for one after the other. [default: cluster.workers "
                "of the study]",
            ),
            bench_options.out,
            options.storage,
            options.as_json,
        )
    ):
        verb = option(verb)
    return verb


def _root(holds: str) -> Callable[[Verb], Verb]:
    option: Any = click.option(
        "--root",
        type=click.Path(path_type=Path),
        required=True,
        help=f"Folder that holds {holds}.",
    )
    return option  # type: ignore[no-any-return]


@click.command(
    short_help="The 19 tasks of VTAB-1k.",
    epilog="""\b
Examples:
  glora-search bench vtab --root vtab-1k --set backbone.checkpoint=weights.npz
  glora-search bench vtab --root vtab-1k --tasks cifar,eurosat,kitti --methods linear,lora --seeds 1
  glora-search bench vtab --root vtab-1k --study study.toml --out results
""",
)
@_root("a folder a task, with train800.txt, val200.txt and test.txt beside the images")
@bench_options.tasks
@_suite_options
def vtab(root: Path, tasks: tuple[str, ...] | None, **given: Any) -> None:
    """Compare methods on VTAB-1k: by task, by group, and the mean of the group means beside
    published figures.

    All lists are checked before anything trains. Runs are recorded as they end; after Ctrl-C the
    same command goes on, and with other tasks or methods it does what is missing.
    """
    _compare("bench_vtab", root, {"tasks": tasks}, **given)


@click.command(
    "few-shot",
    short_help="Five fine-grained data sets, 1 to 16 images a class.",
    epilog="""\b
Examples:
  glora-search bench few-shot --root few-shot --set backbone.checkpoint=weights.npz
  glora-search bench few-shot --root few-shot --datasets oxford_pets,food-101 --shots 1,4,16
""",
)
@_root("a folder a data set, with the lists of NOAH in annotations/ and the images in images/")
@bench_options.listed("--datasets", "Data sets")
@click.option(
    "--shots",
    callback=bench_options.numbers,
    metavar="N,M,...",
    help="Training images a class, with commas. [default: 1,2,4,8,16]",
)
@_suite_options
def few_shot(
    root: Path, datasets: tuple[str, ...] | None, shots: tuple[int, ...] | None, **given: Any
) -> None:
    """Compare methods on fine-grained data sets with few images a class, by data set and number of
    shots.

    Seed k trains on the list ...seed_k. More seeds than there are lists is an error.
    """
    _compare("bench_few_shot", root, {"datasets": datasets, "shots": shots}, **given)


@click.command(
    short_help="16-shot ImageNet, tested on V2, Sketch, A and R.",
    epilog="""\b
Examples:
  glora-search bench domains --root data --set backbone.checkpoint=weights.npz
  glora-search bench domains --root data --domains imagenet,imagenet-a --set data.mask_classes=false
""",
)
@_root("imagenet, imagenetv2, imagenet-sketch, imagenet-adversarial and imagenet-rendition")
@bench_options.listed("--domains", "Domains")
@_suite_options
def domains(root: Path, domains: tuple[str, ...] | None, **given: Any) -> None:
    """Compare methods that are trained on 16 images of each ImageNet class and tested on other
    domains.

    One training of a method and seed is tested on all domains. Of a domain that has 200 classes
    the logits of these are compared. Seed k trains on the list ...seed_k. More seeds than there
    are lists is an error.
    """
    _compare("bench_domains", root, {"domains": domains}, **given)


SUITES: Final = (vtab, few_shot, domains)


def _compare(
    operation: str,
    root: Path,
    choice: dict[str, Any],
    *,
    storage: str | None,
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    tell_of_loading()
    from glora_search import operations
    from glora_search.operations.suites import Asked

    with watched(lambda: bench_options.AGAIN) as progress:
        found = getattr(operations, operation)(
            root, **choice, asked=Asked(**asked), storage=storage, progress=progress
        )
    bench_options.show(found, out, as_json)
