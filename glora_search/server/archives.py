"""Exports as one file: which files there are, and the zip of them."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

from fastapi.responses import FileResponse

from glora_search.server.problems import RefusedError
from glora_search.server.service import Service

BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file."},
    206: {"content": {"application/octet-stream": {}}, "description": "The asked part of it."},
    416: {"description": "No such part."},
}
"""For the OpenAPI document: what a route answers that sends a file."""


def files_in(service: Service, directory: Path, name: str) -> list[Path]:
    """The files of an export of a study.

    Raises:
        RefusedError: It is not below the study's folder, or there is nothing in it.
    """
    own, folder = service.settings.root.resolve() / name, directory.resolve()
    if not folder.is_relative_to(own) or not folder.is_dir():
        raise RefusedError(404, f"the export of study {name!r} is not below the study's folder")
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.is_symlink()]
    if not files:
        raise RefusedError(404, f"the export of study {name!r} is empty")
    return files


def zip_answer(files: list[Path], archive: Path, filename: str) -> FileResponse:
    """A zip of files, or with a header `Range` a part of it.

    Args:
        files: At least one.
        archive: Where the zip is kept; it is made anew where a file is younger.
        filename: What a browser calls it.
    """
    newest = max(file.stat().st_mtime_ns for file in files)
    if not archive.is_file() or archive.stat().st_mtime_ns < newest:
        _pack(files, archive)
    return FileResponse(archive, media_type="application/zip", filename=filename)


def _pack(files: list[Path], archive: Path) -> None:
    """Write a zip, whole or not at all. Weights do not shrink, so nothing is compressed."""
    archive.parent.mkdir(exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=archive.parent, prefix=".export-")
    os.close(handle)
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as packed:
            for file in files:
                packed.write(file, file.name)
        Path(draft).replace(archive)
    finally:
        Path(draft).unlink(missing_ok=True)
