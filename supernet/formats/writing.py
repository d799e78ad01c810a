"""Write an export's further formats, and check each of them before it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from supernet.data import Split
from supernet.errors import ExportError
from supernet.formats.facts import ModelFacts
from supernet.formats.loading import load_classifier
from supernet.formats.model_card import model_card
from supernet.formats.onnx_file import write_onnx
from supernet.formats.pt2_file import write_pt2
from supernet.formats.sample import sample_of


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format.

    Args:
        file: What it adds to an export.
        tolerance: The largest difference of a logit that is accepted.
        packages: What has to be installed for it besides the project's own dependencies.
        loads: What is loaded to check it, within the export; its file if not given.
    """

    file: str
    tolerance: float
    packages: tuple[str, ...] = ()
    loads: str | None = None


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "onnx": Format(
            file="model.onnx", tolerance=1e-4, packages=("onnx", "onnxscript", "onnxruntime")
        ),
        "pt2": Format(file="model.pt2", tolerance=1e-5),
        "hf": Format(file="README.md", tolerance=1e-5, loads="."),
    }
)
"""Besides timm's, which is always written. In the order of writing: the model card names others."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is known of a format that was written.

    Args:
        file: Within the export.
        logit_difference: The largest absolute one between the network and what the disk has of it.
        n_images: On so many images of the validation split.
        tolerance: What would have been accepted.
    """

    file: str
    logit_difference: float
    n_images: int
    tolerance: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Besides:
    """Which formats to write besides timm's.

    Args:
        names: Of `FORMATS`.
        split: Images to check them on.
        on_written: Told how many are written and checked.
    """

    names: Sequence[str]
    split: Split
    on_written: Callable[[int], None] = lambda done: None


def check_formats(names: Iterable[str]) -> tuple[str, ...]:
    """The formats to write besides timm's, each once, in the order of `FORMATS`.

    Raises:
        ExportError: There is no such format, or it needs a package that is not installed.
    """
    names = tuple(names)
    for name in names:
        if name not in {"timm", *FORMATS}:
            raise ExportError(f"no format {name!r}; accepted: timm, {', '.join(FORMATS)}")
    chosen = tuple(name for name in FORMATS if name in names)
    for name in chosen:
        if missing := [p for p in FORMATS[name].packages if find_spec(p) is None]:
            raise ExportError(
                f"the format {name} needs the package {' and '.join(missing)}; "
                f"install glora-search[{name}]"
            )
    return chosen


def export_files(own: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """The files of an export with further formats.

    Args:
        own: Those of every export; the last one stays last, since it stands for all of them.
        names: Of the formats.
    """
    return (*own[:-1], *(FORMATS[name].file for name in names), own[-1])


def write_formats(
    folder: Path,
    network: nn.Module,
    facts: ModelFacts,
    record: Mapping[str, Any],
    besides: Besides,
) -> dict[str, Written]:
    """Write formats into an export that is under way, and check each.

    Args:
        folder: Holds timm's files already.
        network: As timm builds it, in evaluation mode, on the CPU.
        facts: What to say of it.
        record: Of the export, for the model card.
        besides: Which formats, and images to check them on.

    Raises:
        ExportError: One cannot be written, or its logits differ.
    """
    names = check_formats(besides.names)
    sample = sample_of(network, besides.split)
    example = sample.batches[0].expand(2, -1, -1, -1).contiguous()
    written: dict[str, Written] = {}
    for name in names:
        format_ = FORMATS[name]
        path = folder / format_.file
        try:
            if name == "onnx":
                write_onnx(network, example, facts, path)
            elif name == "pt2":
                write_pt2(network, example, facts, path)
            else:
                others = [FORMATS[other].file for other in written]
                path.write_text(model_card(facts, record, others), encoding="utf-8")
        except (ExportError, OSError):
            raise
        except Exception as error:  # torch's exporters fail on a network in any way
            text = " ".join(str(error).split())[:300]
            raise ExportError(
                f"torch cannot write {facts.architecture} in the format {name}: {text}"
            ) from error
        difference = sample.largest_difference(
            load_classifier(folder / (format_.loads or format_.file)).run
        )
        if not difference <= format_.tolerance:
            raise ExportError(
                f"the format {name} differs by {difference:.2g} in a logit of {sample.n_images} "
                f"images; accepted is {format_.tolerance:g}. Nothing was written"
            )
        written[name] = Written(
            file=format_.file,
            logit_difference=difference,
            n_images=sample.n_images,
            tolerance=format_.tolerance,
        )
        besides.on_written(len(written))
    return written
