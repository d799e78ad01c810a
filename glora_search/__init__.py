"""The service: study files, proposals, evaluators, the database, and the loop that joins them.

`launch`, `resume`, `export`, `predict`, `sweep` and `compare` are the commands as functions. Each
is imported when it is asked for, so that `import glora_search` and the help stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glora_search.operations.comparing import compare
    from glora_search.operations.exporting import export
    from glora_search.operations.launching import launch, resume
    from glora_search.operations.predicting import predict
    from glora_search.operations.sweeping.driving import sweep
    from glora_search.study.reading import load_study_file

__all__ = ["compare", "export", "launch", "load_study_file", "predict", "resume", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    home = "study.reading" if name == "load_study_file" else "operations"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
