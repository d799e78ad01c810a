"""The keys of a study file that are paths, for whoever sends a study elsewhere or takes one."""

from __future__ import annotations

from typing import Final

READ: Final = (
    "backbone.checkpoint",
    "backbone.pretrain.data.root",
    "data.root",
    "supernet.checkpoint",
)
"""Files and folders that a study reads."""

WRITTEN: Final = ("study.directory", "export.directory", "cluster.artifacts")
"""Folders into which a study writes."""
