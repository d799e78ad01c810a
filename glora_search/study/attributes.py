"""Names under which facts of a study are stored with it, where two rooms have to agree on them."""

from __future__ import annotations

from typing import Final

MISSING_IN_VAL: Final = "missing_in_val"
"""Classes of the training split that the validation split has no image of: a list of names."""

SENSITIVITY: Final = "sensitivity"
"""For each gene the score of each of its choices, where a search starts warm by them."""

MISSING_IN_TEST: Final = "missing_in_test"
"""Likewise of the test split; within the attribute `export`."""
