"""Routes of exports: the one that ended the search, and those of any subnet that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from glora_search.operations.following import StudyView
from glora_search.operations.served_exports import (
    ServedExport,
    begin_export,
    served_export,
    served_exports,
    wanted_trial,
)
from glora_search.server.archives import BYTES, files_in, zip_answer
from glora_search.server.problems import RefusedError, told
from glora_search.server.service import Served, Service
from glora_search.server.shapes import StudyName
from glora_search.study.picking import Pick

router = APIRouter(tags=["files"], responses=told(409))

_ARCHIVE: Final = ".export.zip"

Digest = Annotated[
    str | None,
    Query(pattern="^[0-9a-f]{8,64}$", description="At least its first 8 characters."),
]
Picked = Annotated[
    Pick | None,
    Query(description="The best in val loss or top-1; or the knee of a front of two objectives."),
]
MaxParams = Annotated[
    int | None,
    Query(ge=0, le=10**15, description="Adapter parameters at most; together with `pick`."),
]


class ExportShape(BaseModel):
    """An export of one subnet."""

    trial: int
    digest: str
    n_params: int
    state: Literal["absent", "running", "ready", "failed"]
    problem: str | None = Field(description="Why it failed.")


class ExportsShape(BaseModel):
    """The exports that somebody asked for, beside the one that ended the search."""

    exports: list[ExportShape]


@router.get("/studies/{name}/exports", response_model=ExportsShape, summary="Exports asked for")
def exports(name: StudyName, service: Served) -> dict[str, Any]:
    """The exports of subnets that were asked for: being made, ready, or failed."""
    found = served_exports(service.settings.root, service.view(name))
    return {"exports": [export.to_json() for export in found]}


@router.post(
    "/studies/{name}/export",
    response_model=ExportShape,
    status_code=202,
    responses={200: {"model": ExportShape, "description": "It is there already."}},
    summary="Export a subnet",
)
def begin(
    name: StudyName,
    service: Served,
    response: Response,
    digest: Digest = None,
    pick: Picked = None,
    max_params: MaxParams = None,
) -> dict[str, Any]:
    """Begin to make the export of a subnet, by a process of the server's machine, one of a study at
    a time. Ask for it by `GET` with its digest, or look at `exports`, to see how it goes.
    """
    export = begin_picked(service, name, digest=digest, pick=pick, max_params=max_params)
    if export.state == "ready":
        response.status_code = 200
    return export.to_json()


@router.get(
    "/studies/{name}/export",
    summary="An export as a zip",
    response_class=FileResponse,
    responses=BYTES,
)
def export(
    name: StudyName,
    service: Served,
    digest: Digest = None,
    pick: Picked = None,
    max_params: MaxParams = None,
) -> FileResponse:
    """The export that ended the search, or that of a subnet, in one file; with a header `Range` a
    part of it, so that a download that broke off can go on.
    """
    view = service.view(name)
    root = service.settings.root
    if digest is None and pick is None and max_params is None:
        stored = view.attributes.get("export") or {}
        if "directory" not in stored:
            raise RefusedError(404, f"study {name!r} has no export yet")
        files = files_in(service, Path(stored["directory"]), name)
        return zip_answer(files, root.resolve() / name / _ARCHIVE, f"{name}.zip")
    trial = _trial(view, digest=digest, pick=pick, max_params=max_params)
    found = served_export(root, view, trial)
    if found.state == "running":
        raise RefusedError(409, f"the export of trial {trial} is being made; ask again in a while")
    if found.state == "failed":
        raise RefusedError(409, f"the export of trial {trial} failed: {found.problem}")
    if found.state == "absent":
        raise RefusedError(404, f"there is no export of trial {trial} yet; POST begins to make it")
    files = files_in(service, found.directory, name)
    archive = found.directory.resolve().with_suffix(".zip")
    return zip_answer(files, archive, f"{name}-{trial}.zip")


def begin_picked(
    service: Service, name: str, *, digest: str | None, pick: Pick | None, max_params: int | None
) -> ServedExport:
    """Begin to make an export; errors as in `begin_export` and `wanted_trial`.

    Raises:
        RefusedError: Nothing is asked for, or two that exclude each other.
    """
    view = service.view(name)
    if digest is None and pick is None and max_params is None:
        raise RefusedError(422, "say which subnet: digest, or pick, max_params or both")
    trial = _trial(view, digest=digest, pick=pick, max_params=max_params)
    return begin_export(service.settings.root, view, trial, service.exporter)


def _trial(
    view: StudyView, *, digest: str | None, pick: Pick | None, max_params: int | None
) -> int:
    if digest is not None and (pick is not None or max_params is not None):
        other = "pick" if pick is not None else "max_params"
        raise RefusedError(422, f"digest and {other} exclude each other; give one of them")
    return wanted_trial(view, digest=digest, pick=pick, max_params=max_params)
