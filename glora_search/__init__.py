"""The service: study files, proposals, evaluators, the database, and the loop that joins them.

`launch`, `resume`, `export` and `sweep` are the commands as functions. They are imported when they
are asked for, so that `import glora_search` and the command line's help stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glora_search.operations.driving import launch, resume
    from glora_search.operations.sweeping.driving import sweep
    from glora_search.stages.exporting import export
    from glora_search.study.file import load_study_file

__all__ = ["export", "launch", "load_study_file", "resume", "sweep"]

_HOMES = {
    "export": "glora_search.stages.exporting",
    "launch": "glora_search.operations.driving",
    "resume": "glora_search.operations.driving",
    "load_study_file": "glora_search.study.file",
    "sweep": "glora_search.operations.sweeping.driving",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
