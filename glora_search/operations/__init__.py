"""What can be done with studies: the functions behind the command line and the Python API.

Each is imported when it is asked for: `from glora_search.operations import launch` loads torch,
`from glora_search.operations import list_studies` does not.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

_HOMES: Final = {
    "bench_domains": "suites",
    "bench_few_shot": "suites",
    "bench_offline": "comparing",
    "bench_vtab": "suites",
    "compare": "comparing",
    "export": "exporting",
    "launch": "launching",
    "list_jobs": "jobs",
    "list_studies": "status",
    "offline_power": "comparing",
    "predict": "predicting",
    "resume": "launching",
    "run_demo": "demo",
    "study_status": "status",
    "submit": "jobs",
    "sweep": "sweeping.driving",
    "sweep_status": "status",
    "write_report": "reports",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
