"""Load an export in any of its formats, to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from supernet.errors import ExportError
from supernet.formats.facts import ModelFacts
from supernet.formats.onnx_file import load_onnx
from supernet.formats.pt2_file import load_pt2
from supernet.formats.sample import Run
from supernet.formats.timm_folder import load_timm


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier:
    """A network that is ready to run, on the CPU.

    Args:
        run: Normalised images (b, c, h, w) to logits (b, classes), both float32.
        facts: How images are prepared, and what the classes are called.
    """

    run: Run
    facts: ModelFacts


def load_classifier(path: Path) -> Classifier:
    """What an export holds.

    Args:
        path: An export's folder, for timm; or a file of it: `.onnx`, `.pt2`.

    Raises:
        ExportError: It is none of these, is damaged, does not say how images are prepared, or
            needs a package that is not installed.
    """
    if not path.exists():
        raise ExportError(f"{str(path)!r} is not there; accepted: an export's folder, .onnx, .pt2")
    load: Callable[[Path], tuple[Run, ModelFacts]]
    if path.is_dir():
        load = load_timm
    elif path.suffix == ".onnx":
        if find_spec("onnxruntime") is None:
            raise ExportError(
                "an .onnx file needs the package onnxruntime; install glora-search[onnx]"
            )
        load = load_onnx
    elif path.suffix == ".pt2":
        load = load_pt2
    else:
        raise ExportError(
            f"{str(path)!r} is no export; accepted: an export's folder, or a file .onnx or .pt2"
        )
    try:
        run, facts = load(path)
    except ExportError:
        raise
    except Exception as error:  # onnxruntime, torch and timm fail on damaged files in any way
        text = " ".join(str(error).split())[:300]
        raise ExportError(f"cannot load {str(path)!r}: {type(error).__name__}: {text}") from error
    return Classifier(run=run, facts=facts)
