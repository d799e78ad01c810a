"""Routes of files: log, files of the export, report. Nothing outside a study's folder is read."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Path as Part
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from glora_search.operations.running import end_of
from glora_search.server.archives import BYTES, files_in
from glora_search.server.problems import RefusedError, told
from glora_search.server.service import Served, Service
from glora_search.server.shapes import StudyName

router = APIRouter(tags=["files"], responses=told(409))

_DRAWING = threading.Lock()  # a report takes seconds of a core, and many would take all of them


class FileShape(BaseModel):
    """A file of an export."""

    name: str
    bytes: int


class FilesShape(BaseModel):
    """The files of an export."""

    files: list[FileShape]


@router.get(
    "/studies/{name}/logs",
    summary="The log of a study",
    response_class=Response,
    responses={
        **told(502),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    },
)
def logs(
    name: StudyName,
    service: Served,
    tail: Annotated[int, Query(ge=1, le=10_000_000, description="Bytes from its end.")] = 100_000,
) -> Response:
    """What the processes of a study have written that servers of this machine started, or its
    latest job on the cluster.
    """
    if service.settings.address is not None:
        from glora_search.operations.jobs import job_log

        text = job_log(name, service.settings.address)
        if text is not None:
            end = text.encode()[-tail:].decode("utf-8", "ignore")
            return Response(end, media_type="text/plain; charset=utf-8")
    path = service.log(name)
    if path is None:
        service.status(name)  # raises where there is no such study
        raise RefusedError(404, f"study {name!r} has no log here")
    return Response(end_of(path, tail), media_type="text/plain; charset=utf-8")


@router.get("/studies/{name}/artifacts", response_model=FilesShape, summary="Files of the export")
def artifacts(name: StudyName, service: Served) -> dict[str, Any]:
    """The files of the export that ended the search."""
    files = _files(service, name)
    return {"files": [{"name": f.name, "bytes": f.stat().st_size} for f in files]}


@router.get(
    "/studies/{name}/artifacts/{file}",
    summary="A file of the export",
    response_class=FileResponse,
    responses=BYTES,
)
def artifact(
    name: StudyName,
    file: Annotated[str, Part(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$")],
    service: Served,
) -> FileResponse:
    """One file of the export, or with a header `Range` a part of it."""
    for path in _files(service, name):
        if path.name == file:
            return FileResponse(path, media_type="application/octet-stream", filename=file)
    raise RefusedError(404, f"the export of study {name!r} has no file {file!r}")


@router.get(
    "/studies/{name}/report",
    summary="The report of a study",
    response_class=FileResponse,
    responses={200: {"content": {"text/html": {}}, "description": "One HTML file."}},
)
def report(name: StudyName, service: Served) -> FileResponse:
    """Pictures and tables of a study as one HTML file, to be saved: its scripts do not run here."""
    service.view(name)
    from glora_search.operations.reports import write_report  # it draws, which is slow to import

    handle, path = tempfile.mkstemp(prefix="glora-search-", suffix=".html")
    os.close(handle)
    removal = BackgroundTask(Path(path).unlink, missing_ok=True)
    try:
        with _DRAWING:
            write_report(name, Path(path), storage=service.settings.storage)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'"}
    return FileResponse(
        path,
        media_type="text/html",
        filename=f"{name}.html",
        headers=headers,
        background=removal,
    )


def _files(service: Service, name: str) -> list[Path]:
    """The files of the export that ended a study's search."""
    stored = service.view(name).attributes.get("export") or {}
    if "directory" not in stored:
        raise RefusedError(404, f"study {name!r} has no export yet")
    return files_in(service, Path(stored["directory"]), name)
