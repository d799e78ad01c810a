"""The report on a study: pictures and tables as one HTML file that needs no network.

Reads what the database holds and nothing else: neither torch nor timm nor Ray is imported. Each
picture is a pure function from outcomes to a figure, in a file of its own; `page` puts them
together.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

_HOMES: Final = {"write_comparison": "comparison", "write_report": "writing"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """What draws is imported when it is asked for: the service needs the data without plotly."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
