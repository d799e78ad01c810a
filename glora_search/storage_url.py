"""Which database: an argument, the environment, or a SQLite file in the working directory."""

from __future__ import annotations

import os
from typing import Final

ENVIRONMENT: Final = "GLORA_SEARCH_STORAGE"
DEFAULT: Final = "sqlite:///glora-search.db"


def resolve_storage(url: str | None) -> str:
    """`url` if given, else GLORA_SEARCH_STORAGE if set, else `glora-search.db` here."""
    return url or os.environ.get(ENVIRONMENT) or DEFAULT
