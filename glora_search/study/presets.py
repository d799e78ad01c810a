"""Settings of a whole study under one name: `study.preset`. Keys that a study gives itself win."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

PRESETS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "published": {
        "supernet": {
            "epochs": 500,
            "storage": "entangled",
            "paths": "uniform",
            "paths_per_step": 1,
        },
        "search": {"operators": "published", "fitness": "top1"},
    },
}
"""Name to section to keys. `published`: GLoRA (arXiv 2306.07967, section 4, and its code)."""


_EARLIER: Final[Mapping[str, Mapping[str, Any]]] = {
    "supernet": {"paths": "uniform", "paths_per_step": 1},
}
"""What studies meant that were stored before there were these keys."""


def as_stored(table: Mapping[str, Any]) -> dict[str, Any]:
    """A study from the database, with the meaning that it had when it was stored."""
    return _filled(table, _EARLIER)


def with_preset(table: Mapping[str, Any]) -> dict[str, Any]:
    """A study's table with the keys of its preset where it has none of its own; as it is where it
    names no preset, or an unknown one.
    """
    study = table.get("study")
    name = study.get("preset") if isinstance(study, Mapping) else None
    return _filled(table, PRESETS.get(name, {}) if isinstance(name, str) else {})


def _filled(table: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    filled = copy.deepcopy(dict(table))
    for section, keys in defaults.items():
        own = filled.setdefault(section, {})
        if isinstance(own, dict):
            filled[section] = {**keys, **own}
    return filled
