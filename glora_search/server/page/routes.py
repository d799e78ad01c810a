"""The pages that show studies."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from glora_search.operations.status import list_studies
from glora_search.reporting.snapshot import Snapshot
from glora_search.server.page.figures import spark_path
from glora_search.server.page.reading import Reader, max_failures
from glora_search.server.page.rendering import STATIC, render, static_file
from glora_search.server.page.states import State, state_of
from glora_search.server.page.views import Row, comparison_view, row_of, study_view

router = APIRouter(include_in_schema=False)

_MOST_COMPARED: Final = 8  # as many lines as the style sheet tells apart
_reader: Final = Reader()


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Style sheet, script and icon."""
    if name not in STATIC:
        return Response(status_code=404)
    return Response(
        static_file(name),
        media_type=STATIC[name],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


@router.get("/")
def studies(request: Request) -> HTMLResponse:
    """All studies."""
    return render("studies", request, here="studies", rows=_rows(request), **_visitor(request))


@router.get("/studies/live")
def studies_live(request: Request) -> HTMLResponse:
    """What changes on the list of studies."""
    return render("studies_live", request, rows=_rows(request), **_visitor(request))


@router.get("/studies/{name}")
def study(request: Request, name: str) -> HTMLResponse:
    """A study."""
    return render(
        "study", request, here="study", notice=None, problem=None, **_study(request, name)
    )


@router.get("/studies/{name}/live")
def study_live(request: Request, name: str) -> HTMLResponse:
    """What changes on the page of a study."""
    return render("study_live", request, **_study(request, name))


@router.get("/compare")
def compare(request: Request) -> HTMLResponse:
    """Two studies or more, side by side."""
    chosen = list(dict.fromkeys(request.query_params.getlist("study")))[:_MOST_COMPARED]
    database = request.app.state.service.database
    choices = [s.name for s in database.list_studies() if s.n_complete]
    problem = None
    missing = [name for name in chosen if name not in choices]
    if missing:
        problem = f"There is no study {missing[0]!r} that has been evaluated; choose others below."
    elif len(chosen) == 1:
        problem = "A comparison needs two studies; choose another one below."
    shown = {}
    if len(chosen) > 1 and not missing:
        shown = comparison_view([_read(request, name) for name in chosen])
    values: dict[str, Any] = {"columns": (), "charts": (), "front": None, "differing": (), **shown}
    return render(
        "compare",
        request,
        status=404 if missing else 200,
        here="compare",
        problem=problem,
        chosen=chosen,
        choices=choices,
        **values,
        **_visitor(request),
    )


def _visitor(request: Request) -> dict[str, Any]:
    return {"may_write": True, "logged_in": False}


def _rows(request: Request) -> list[Row]:
    service = request.app.state.service
    database = service.database
    attributes = {s.name: s.attributes for s in database.list_studies()}
    rows = []
    for listed in list_studies(service.settings.storage).studies:
        spark, measure = "", None
        if listed.fault is None and listed.study in attributes:
            record = database.open_study(listed.study)
            measure = record.objectives.each[0]
            spark = spark_path(record.values(), higher_is_better=measure.higher_is_better)
        limit = max_failures(attributes.get(listed.study, {}).get("study"))
        rows.append(row_of(listed, measure=measure, spark=spark, max_failures=limit))
    return rows


def _read(request: Request, name: str) -> tuple[Snapshot, State]:
    record = request.app.state.service.database.open_study(name)
    snapshot = _reader.snapshot(record)
    state = state_of(
        snapshot.facts.status,
        held_by=snapshot.holder,
        failed=len(snapshot.trials) - len(snapshot.complete),
        max_failures=max_failures(snapshot.facts.study),
    )
    return snapshot, state


def _study(request: Request, name: str) -> dict[str, Any]:
    snapshot, state = _read(request, name)
    return {
        **study_view(snapshot, state),
        **_visitor(request),
        "events": f"/api/v1/studies/{name}/events",
        "every": 30 if state.is_over else 3,
        "actions": [],
        "downloads": [],
        "log": "",
    }
