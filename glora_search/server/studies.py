"""Routes of studies: list, validate, create, start, stop, resume, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from glora_search.operations.serving import (
    create_study,
    delete_study,
    resume_study,
    served_studies,
    start_study,
    stop_study,
)
from glora_search.server.admission import OWN_FOLDERS, admitted, admitted_overrides
from glora_search.server.documents import BODY, Document, read_document
from glora_search.server.problems import RefusedError, error_problem, told
from glora_search.server.security import media_type
from glora_search.server.service import Served, Service
from glora_search.server.shapes import (
    ChangesShape,
    ListShape,
    NamedShape,
    StatusShape,
    StudyName,
    ValidShape,
)
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import parse_study

router = APIRouter(tags=["studies"], responses=told(409))


@router.get("/studies", response_model=ListShape, summary="List studies")
def studies(
    service: Served,
    status: Annotated[str | None, Query(max_length=50, description="Only of this status.")] = None,
    running: Annotated[bool | None, Query(description="Only those that run, or do not.")] = None,
    contains: Annotated[str, Query(max_length=200, description="A part of the name.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> dict[str, Any]:
    """All studies and sweeps of the database, the oldest first, and studies that were created and
    not started yet, last.
    """
    found = [
        study.to_json()
        for study in served_studies(service.database).studies
        if contains in study.study
        and (status is None or study.status == status)
        and (running is None or (study.held_by is not None) == running)
    ]
    end = offset + limit
    return {
        "studies": found[offset:end],
        "total": len(found),
        "next": end if end < len(found) else None,
    }


@router.post(
    "/studies/validate",
    response_model=ValidShape,
    openapi_extra=BODY,
    summary="Check a study file, and keep nothing",
)
async def validate(request: Request, service: Served) -> Any:
    """All mistakes of a study file at once, each with its key and, for TOML, its line."""

    def work(document: Document) -> dict[str, Any]:
        file = parse_study(admitted(document.table, service.settings), origin="the study")
        return {"study": file.study.name, "resolved": file.model_dump(mode="json")}

    return await _with_document(request, work)


@router.post(
    "/studies",
    response_model=NamedShape,
    status_code=201,
    responses=told(502),
    openapi_extra=BODY,
    summary="Create a study",
)
async def create(
    request: Request,
    service: Served,
    start: Annotated[bool, Query(description="Whether to start it at once.")] = False,
) -> Any:
    """Keep a study file, so that it can be started. Mistakes are answered as by `validate`."""

    def work(document: Document) -> JSONResponse:
        table = admitted(document.table, service.settings)
        name = create_study(service.database, table, service.runner if start else None)
        return JSONResponse(
            _named(service, name), 201, headers={"Location": f"/api/v1/studies/{name}"}
        )

    return await _with_document(request, work)


@router.get("/studies/{name}", response_model=StatusShape, summary="How far a study is")
def study(name: StudyName, service: Served) -> dict[str, Any]:
    """How far a study is, generation by generation."""
    return service.status(name)


@router.post(
    "/studies/{name}/start",
    response_model=NamedShape,
    status_code=202,
    responses=told(502),
    summary="Start a study",
)
def start(name: StudyName, service: Served) -> dict[str, Any]:
    """Launch a study that was created; the answer comes before it has begun to train."""
    start_study(service.database, name, service.runner)
    return _named(service, name)


@router.post(
    "/studies/{name}/resume",
    response_model=NamedShape,
    status_code=202,
    responses=told(502),
    summary="Resume a study",
)
def resume(name: StudyName, service: Served, changes: ChangesShape | None = None) -> dict[str, Any]:
    """Go on with a study where the database says it stopped, whoever launched it; with changes of
    what may differ between a launch and its resume.
    """
    resume_changed(service, name, [] if changes is None else changes.overrides)
    return _named(service, name)


def resume_changed(service: Service, name: str, overrides: Sequence[str]) -> None:
    """Go on with a study; with overrides, if this server admits them."""
    admitted = admitted_overrides(overrides, name, service.settings)
    resume_study(service.database, name, service.runner, admitted)


@router.post(
    "/studies/{name}/stop",
    response_model=NamedShape,
    status_code=202,
    responses=told(502),
    summary="Stop a study",
)
def stop(name: StudyName, service: Served) -> dict[str, Any]:
    """Interrupt a study as Ctrl-C would; it ends soon after, and can be resumed."""
    stop_study(service.database, name, service.settings.address)
    return _named(service, name)


@router.delete("/studies/{name}", status_code=204, summary="Delete a study")
def delete(
    name: StudyName,
    service: Served,
    confirm: Annotated[str, Query(max_length=200, description="The study's name once more.")],
    files: Annotated[
        Literal["keep", "delete"], Query(description="What becomes of its folder.")
    ] = "keep",
) -> Response:
    """Delete a study that does not run from the database. That cannot be undone."""
    if confirm != name:
        raise RefusedError(422, f"to delete study {name!r}, repeat its name: confirm={name}")
    own = files == "delete" and name not in OWN_FOLDERS
    delete_study(service.database, name, service.settings.root if own else None)
    service.studies.forget(name)
    return Response(status_code=204)


async def _with_document(request: Request, work: Callable[[Document], Any]) -> Any:
    """Read the study file of a request, and work with it in a thread."""
    body = await request.body()

    def reading() -> Any:
        document = Document({})
        try:
            document = read_document(body, media_type(request.headers))
            return work(document)
        except StudyFileError as error:
            return error_problem(error, document.lines)

    return await run_in_threadpool(reading)


def _named(service: Service, name: str) -> dict[str, Any]:
    return {"study": name, "status": service.status(name)["status"]}
