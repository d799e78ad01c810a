"""torch.export: one file that torch alone loads, without timm and without this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from supernet.errors import ExportError
from supernet.formats.facts import ModelFacts
from supernet.formats.sample import Run, without_gradients

FACTS: Final = "facts.json"
"""The extra file, within a .pt2 file, that holds the facts."""


def write_pt2(network: nn.Module, example: Tensor, facts: ModelFacts, path: Path) -> None:
    """Write a network with its weights into one file, with the facts as an extra file in it.

    Args:
        network: In evaluation mode, on the CPU.
        example: Two images, float32 (2, c, h, w); the file takes any number.
        facts: What to say of it.
        path: The file.
    """
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    document = {name: json.loads(text) for name, text in facts.to_texts().items()}
    torch.export.save(program, path, extra_files={FACTS: json.dumps(document, indent=2)})


def load_pt2(path: Path) -> tuple[Run, ModelFacts]:
    """A network that torch runs on the CPU.

    Raises:
        ExportError: The file says nothing of its network.
    """
    found = {FACTS: ""}
    program = torch.export.load(path, extra_files=found)
    if not found[FACTS]:
        raise ExportError(f"{str(path)!r} has no {FACTS} in it: it is no export of glora-search")
    texts = {name: json.dumps(value) for name, value in json.loads(found[FACTS]).items()}
    return without_gradients(program.module()), ModelFacts.from_texts(texts, str(path))
