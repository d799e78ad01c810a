"""Which database: an argument, the environment, or a SQLite file in the working directory."""

from __future__ import annotations

import os
from typing import Final

from glora_search.recording.network_files import check_local
from glora_search.recording.urls import parse_url

ENVIRONMENT: Final = "GLORA_SEARCH_STORAGE"
DEFAULT: Final = "sqlite:///glora-search.db"


def resolve_storage(url: str | None) -> str:
    """`url` if given, else GLORA_SEARCH_STORAGE if set, else `glora-search.db` here."""
    return url or os.environ.get(ENVIRONMENT) or DEFAULT


def driver_url(url: str | None) -> str:
    """The same, for a process that is to write there.

    Raises:
        StorageError: It is no database, or a file of a network file system.
    """
    resolved = resolve_storage(url)
    file = parse_url(resolved).sqlite_file
    if file is not None:
        check_local(file)
    return resolved


def shown_url(url: str | None) -> str:
    """The same, as it may be printed."""
    return parse_url(resolve_storage(url)).shown
