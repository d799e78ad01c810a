"""Write the report: a whole page under its name, or nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from glora_search.recording import StudyRecord
from glora_search.reporting.page import render_page
from glora_search.reporting.snapshot import take_snapshot
from glora_search.study.errors import ReportError

_log = logging.getLogger(__name__)


def write_report(record: StudyRecord, path: Path) -> None:
    """Write the report on a study, in whatever state it is, as one self-contained HTML file.

    Args:
        record: The study; it is read once, and need not be held.
        path: The file, `.html`.

    Raises:
        ReportError: `path` cannot be written; what stood there is untouched.
        StorageError: The database fails.
    """
    n_bytes = write_page(render_page(take_snapshot(record)), path)
    _log.info("wrote the report on study %r to %s (%d bytes)", record.name, path, n_bytes)


def write_page(page: str, path: Path) -> int:
    """Write a page under a temporary name beside `path` and rename it; the number of its bytes.

    Args:
        page: HTML.
        path: The file; its folders are made, and what stands there is replaced.

    Raises:
        ReportError: `path` cannot be written; what stood there is untouched.
    """
    # A file name that was no UTF-8 can be part of a recorded error as lone surrogates.
    encoded = page.encode("utf-8", errors="backslashreplace")
    try:
        if path.is_dir():
            raise _unwritable(path, "it is a folder")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except ReportError:
        raise
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return len(encoded)


def _unwritable(path: Path, why: str) -> ReportError:
    return ReportError(
        f"the report cannot be written to {str(path)!r}: {why}; "
        f"give the path of a file in a folder that can be written"
    )
