"""The verbs that compare methods: compare, bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from glora_search.cli import bench_options, options
from glora_search.cli.output import tell, tell_of_loading
from glora_search.cli.suite_verbs import SUITES
from glora_search.cli.watching import watched

if TYPE_CHECKING:
    from glora_search.bench.science.tables import ScienceTable

_directory = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("glora-search-bench"),
    show_default=True,
    help="Where the backbone and the supernets are kept.",
)
_workers = click.option(
    "--workers",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Runs at a time, on Ray; 0 for one after the other.",
)
_quick = click.option("--quick", is_flag=True, help="Fewer tasks, seeds, rates and epochs.")


@click.command(
    short_help="Train other methods on a study's data beside GLoRA.",
    epilog="""\b
Examples:
  glora-search compare study.toml --methods lora,ssf,vpt-deep,glora-search --seeds 3
  glora-search compare study.toml --methods linear,lora --epochs 50 --no-sweep --json
  glora-search compare study.toml --methods lora,glora-search --seeds 5 --out results
""",
)
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.toml")
@bench_options.methods
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@bench_options.epochs
@bench_options.sweep
@bench_options.reference
@bench_options.out
@options.overrides("a key of the study file")
@options.storage
@options.as_json
def compare(
    study: Path,
    methods: tuple[str, ...] | None,
    seeds: int,
    epochs: int,
    sweep: bool,
    reference: str | None,
    out: Path | None,
    overrides: tuple[str, ...],
    storage: str | None,
    as_json: bool,
) -> None:
    """Train methods on a study's data with the same splits, seeds and trainer, and compare them.

    Methods that have a size get the one that search.max_params allows. Each method gets a sweep of
    three learning rates, judged by the validation split. Runs are recorded as they end; after
    Ctrl-C the same command goes on.
    """
    from glora_search.study.reading import load_study_file

    file = load_study_file(study, overrides)
    tell_of_loading()
    from glora_search.operations import compare as compare_methods

    with watched(lambda: bench_options.AGAIN) as progress:
        found = compare_methods(
            file,
            methods=methods,
            seeds=seeds,
            epochs=epochs,
            reference=reference,
            sweep=sweep,
            storage=storage,
            progress=progress,
        )
    bench_options.show(found, out, as_json)


@click.group(short_help="Compare methods on a suite of tasks.")
def bench() -> None:
    """Compare methods on a suite of tasks: drawn ones, or data sets that are on this machine."""


@bench.command(
    short_help="Ten tasks that need no download.",
    epilog="""\b
Examples:
  glora-search bench offline --quick --methods linear,lora,glora-search
  glora-search bench offline --seeds 5 --out results
  glora-search bench offline --power --tasks count,size
""",
)
@bench_options.methods
@bench_options.tasks
@click.option("--seeds", type=click.IntRange(1), help="[default: 5; --quick: 3; --power: 2]")
@_quick
@click.option(
    "--power",
    is_flag=True,
    help="Show which differences the suite can find, by two methods. [default: lora,ssf]",
)
@bench_options.reference
@_workers
@_directory
@bench_options.out
@options.storage
@options.as_json
def offline(
    methods: tuple[str, ...] | None,
    tasks: tuple[str, ...] | None,
    seeds: int | None,
    quick: bool,
    power: bool,
    reference: str | None,
    workers: int,
    directory: Path,
    out: Path | None,
    storage: str | None,
    as_json: bool,
) -> None:
    """Compare methods on nine drawn tasks and the handwritten digits 5-9.

    A small vision transformer is pretrained once on another drawn task. Each seed draws new
    images: 800 to train, 200 for val, 5,000 for test (of the digits 100, 200 and 596).
    """
    tell_of_loading()
    from glora_search.cli.bench_tables import power_output
    from glora_search.operations import bench_offline, offline_power

    with watched(lambda: bench_options.AGAIN) as progress:
        if power:
            shown = power_output(
                offline_power(
                    pair=methods or ("lora", "ssf"),
                    tasks=tasks,
                    seeds=seeds or 2,
                    quick=quick,
                    directory=directory,
                    workers=workers,
                    storage=storage,
                    progress=progress,
                )
            )
        else:
            found = bench_offline(
                methods=methods,
                tasks=tasks,
                seeds=seeds,
                quick=quick,
                directory=directory,
                workers=workers,
                reference=reference,
                storage=storage,
                progress=progress,
            )
    if power:
        if out is not None:
            bench_options.write(out, "power", shown)
        shown.show(as_json)
    else:
        bench_options.show(found, out, as_json)


@bench.command(
    short_help="What a search is worth, and why.",
    epilog="""\b
Examples:
  glora-search bench science --quick --out results
  glora-search bench science --parts methods --methods lora,fact-tk --seeds 3 --out results
  glora-search bench science --parts designs --designs "one path a step,sandwich" --epochs 180
""",
)
@bench_options.listed(
    "--parts", "methods, cost, ends, samplers, fitness, fronts, ranking, designs, budgets"
)
@bench_options.tasks
@click.option("--seeds", type=click.IntRange(1), help="Supernets of each task.")
@bench_options.listed("--methods", "Methods without search")
@bench_options.listed("--designs", "Ways to train a supernet")
@click.option("--epochs", type=click.IntRange(1), help="Of the supernets.")
@click.option("--quick", is_flag=True, help="One task, two seeds, short trainings: ten minutes.")
@_workers
@_directory
@bench_options.out
@options.storage
@options.as_json
def science(
    parts: tuple[str, ...] | None,
    tasks: tuple[str, ...] | None,
    seeds: int | None,
    methods: tuple[str, ...] | None,
    designs: tuple[str, ...] | None,
    epochs: int | None,
    quick: bool,
    workers: int,
    directory: Path,
    out: Path | None,
    storage: str | None,
    as_json: bool,
) -> None:
    """Measure on the offline suite what a search is worth. Is the winner better than methods
    without search, and at which cost? Is it better than averages, fine-tuning and other samplers?
    Which search finds the better front of val loss and parameters? Do inherited weights rank
    subnets well? Which way to train a supernet is best, and at which size?

    A part is one table. Runs are recorded as they end; after Ctrl-C the same command goes on.
    """
    tell_of_loading()
    from glora_search.cli.science_tables import science_output
    from glora_search.operations.science import science as ask

    with watched(lambda: bench_options.AGAIN) as progress:
        found = ask(
            parts=parts,
            tasks=tasks,
            seeds=seeds,
            methods=methods,
            designs=designs,
            epochs=epochs,
            quick=quick,
            directory=directory,
            workers=workers,
            storage=storage,
            progress=progress,
        )
    shown = science_output(found)
    if out is not None:
        bench_options.write(out, "science", shown)
        tell(f"written: {out / 'science'}.json and .md")
        if (budgets := found.tables.get("budgets")) is not None:
            _draw(budgets, out / "science_budgets.svg")
    shown.show(as_json)


def _draw(budgets: ScienceTable, path: Path) -> None:
    from glora_search.cli.science_picture import draw_budgets

    try:
        draw_budgets(budgets, path)
    except ImportError:
        tell("no picture: it needs matplotlib, pip install 'glora-search[plots]'")
    else:
        tell(f"drawn: {path}")


for _suite in SUITES:
    bench.add_command(_suite)

VERBS: Final = (compare, bench)
