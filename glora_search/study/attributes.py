"""Names of study attributes that more than one package of `glora_search` reads or writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MISSING_IN_VAL: Final = "missing_in_val"
"""Classes of the training split that the validation split has no image of: a list of names."""

SENSITIVITY: Final = "sensitivity"
"""For each gene the score of each of its choices, where a search starts warm by them."""

MISSING_IN_TEST: Final = "missing_in_test"
"""Likewise of the test split; within the attribute `export`."""


def made_of(export: Mapping[str, Any]) -> str:
    """What a stored export was made of, in words; empty for a subnet as the search found it."""
    made = _made_of(export)
    if export.get("calibration") is None:
        return made
    return f"{made or 'trial ' + str(export['trial'])}, calibrated"


def _made_of(export: Mapping[str, Any]) -> str:
    n_averaged, n_candidates = len(export.get("average_of", ())), len(export.get("soup_of", ()))
    if n_candidates:
        return f"soup of {n_averaged} of {n_candidates} subnets"
    if n_averaged:
        return f"average of {n_averaged} subnets"
    if tuned := export.get("finetuning"):
        epochs = f"epoch {tuned['kept_epoch']} of {tuned['epochs']}"
        if tuned.get("keep") == "average":
            runs = f"{tuned['runs']} runs of " if tuned.get("runs", 1) > 1 else ""
            epochs = f"average of {runs}{tuned['epochs']} epochs"
        return f"trial {export['trial']}, fine-tuned: {epochs}"
    return ""
