"""The verb that runs an export over images: predict."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click

from glora_search.cli.output import tell

if TYPE_CHECKING:
    from supernet.prediction import Prediction


@click.command(
    short_help="Class and probability of images, by an export.",
    epilog="""\b
Examples:
  glora-search predict my-vit photos > predictions.csv
  glora-search predict my-vit photos more/cat.jpg --top-k 3 --out predictions.csv
  glora-search predict my-vit/model.onnx 'photos/**/*.jpg' --json --out predictions.jsonl
  glora-search predict my-vit/model.pt2 photos --batch-size 16
""",
)
@click.argument("export", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file for the predictions; it appears when they are complete. [default: stdout]",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of CSV.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="K",
    help="So many classes an image, the most probable first.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Images at a time.",
)
def predict(
    export: Path,
    images: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    top_k: int,
    batch_size: int,
) -> None:
    """Predict the class of images with an export: its folder, or its model.onnx or model.pt2.

    IMAGES are folders, whose images count at any depth, files, and patterns in quotes. Images are
    prepared as the export says. CSV has the columns path, class, probability, with K rows an image;
    of JSON lines each is an image. It needs neither a database nor Ray.

    An image that does not decode is told on stderr and left out; the others are predicted, and the
    exit status is 1.
    """
    from search_spaces.errors import GLoRASearchError

    if out is not None and out.exists():
        raise click.UsageError(f"{str(out)!r} is there already; choose another, or remove it first")
    tell("loading torch and timm ...")
    from glora_search.cli.progress_bars import for_stderr
    from glora_search.operations import predict as predict_images
    from glora_search.stages.progress import Silent

    shown = out is None and sys.stdout.isatty()  # then the rows themselves tell the progress
    found = predict_images(
        export,
        images,
        top_k=top_k,
        batch_size=batch_size,
        progress=Silent() if shown else for_stderr(),
    )
    n_images = n_faults = 0
    with _sink(out) as stream:
        write = (_json_lines if as_json else _csv)(stream)
        for prediction in found:
            n_images += 1
            if prediction.fault is None:
                write(prediction)
            else:
                n_faults += 1
                tell(prediction.fault)
    if n_faults:
        raise GLoRASearchError(f"{n_faults} of {n_images} images do not decode; they are left out")


@contextlib.contextmanager
def _sink(out: Path | None) -> Iterator[TextIO]:
    """Where predictions go; a file is there whole or not at all."""
    if out is None:
        yield sys.stdout
        return
    from glora_search.study.errors import ReportError
    from search_spaces.errors import GLoRASearchError

    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        temporary.replace(out)
    except GLoRASearchError:  # of the prediction: some are an OSError as well
        raise
    except OSError as error:
        raise ReportError(f"cannot write {str(out)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _csv(stream: TextIO) -> Callable[[Prediction], None]:
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(("path", "class", "probability"))

    def write(prediction: Prediction) -> None:
        for name, probability in prediction.classes:
            rows.writerow((prediction.path, name, f"{probability:.6f}"))

    return write


def _json_lines(stream: TextIO) -> Callable[[Prediction], None]:
    def write(prediction: Prediction) -> None:
        classes = [{"class": name, "probability": p} for name, p in prediction.classes]
        line = {"path": str(prediction.path), "predictions": classes}
        stream.write(f"{json.dumps(line)}\n")

    return write


VERBS: Final = (predict,)
