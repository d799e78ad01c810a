"""timm's own folder, and Hugging Face's, which is that with a README.md."""

from __future__ import annotations

import json
from pathlib import Path

import timm

from supernet.errors import ExportError
from supernet.formats.facts import ModelFacts
from supernet.formats.sample import Run, without_gradients


def load_timm(folder: Path) -> tuple[Run, ModelFacts]:
    """A network that timm builds from a folder, on the CPU.

    Raises:
        ExportError: The folder is not one that timm wrote.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ExportError(f"{str(folder)!r} is no export: there is no {name} in it")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    facts = ModelFacts.from_timm_config(config, str(folder / "config.json"))
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return without_gradients(network), facts
