"""Write the report of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glora_search.recording import Database
from glora_search.recording.storage_url import resolve_storage
from glora_search.reporting import write_comparison as write_picture
from glora_search.reporting import write_report as write_page


def write_report(name: str, out: Path, *, storage: str | None = None) -> None:
    """Write pictures and tables of a study as one HTML file that needs no network.

    Args:
        name: The study.
        out: The file; what is there is replaced.
        storage: As in `glora_search.launch`.

    Raises:
        StudyNotFoundError: There is none of that name.
        ReportError: The file cannot be written.
    """
    with Database.open(resolve_storage(storage), create=False) as database:
        write_page(database.open_study(name), out)


def write_comparison(document: Mapping[str, Any], out: Path) -> None:
    """Write a comparison's picture, test top-1 against parameters, as one HTML file.

    Args:
        document: What `Comparison.to_json` gives.
        out: The file; what is there is replaced.

    Raises:
        ReportError: The file cannot be written.
    """
    write_picture(document, out)
