"""A study small enough to run whole in seconds: real digits, a real transformer, every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from glora_search.study.reading import parse_study
from glora_search.study.study_file import StudyFile
from supernet import Architecture

MODEL = "vit_tiny_patch16_224"
ARGS: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
}
N_SUBNETS = 24


def write_backbone(path: Path, **changes: Any) -> Path:
    """A checkpoint with random weights, of a transformer that tells digits apart a little."""
    model = Architecture(MODEL, 3, {**ARGS, **changes}).build(seed=7)
    save_file(model.state_dict(), path)
    return path


def study_table(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """The study as nested dictionaries; `sections` override keys of single sections."""
    checkpoint = folder / "backbone.safetensors"
    if not checkpoint.exists():
        write_backbone(checkpoint)
    table: dict[str, Any] = {
        "study": {"name": "tiny", "seed": 3, "directory": str(folder / "runs")},
        "backbone": {"model": MODEL, "args": ARGS, "checkpoint": str(checkpoint)},
        "data": {"source": "digits", "classes": [1, 4, 7], "n_train": 48, "n_val": 60},
        "space": {"preset": "digits"},
        "supernet": {
            "epochs": 6,
            "lr": 2e-3,
            "batch_size": 24,
            "checkpoint_every_s": 0.0,
            "paths_per_step": 1,  # as many passes as a step needs at least
        },
        "search": {
            "population": 8,
            "generations": 2,
            "parents": 3,
            "mutations": 3,
            "crossovers": 3,
            "flush_every": 3,
        },
        "cluster": {"workers": 0},
    }
    for section, keys in sections.items():
        table[section] = {**table.get(section, {}), **keys}
    return table


def study(folder: Path, **sections: dict[str, Any]) -> StudyFile:
    """The study, checked."""
    return parse_study(study_table(folder, **sections), origin="tiny study")


def write_study(folder: Path, **sections: dict[str, Any]) -> Path:
    """The study as a TOML file in `folder`."""
    lines = []
    for section, keys in study_table(folder, **sections).items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in keys.items()]
    path = folder / "study.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    return json.dumps(value)


def found(outcomes: list[Any]) -> list[tuple[Any, ...]]:
    """What a search found, without who found it and how long it took."""
    return [
        (*o.candidate.place, o.candidate.subnet.digest, o.candidate.operator, o.loss, o.top1)
        for o in outcomes
    ]
