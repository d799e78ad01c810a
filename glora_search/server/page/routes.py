"""The pages that show studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from glora_search.operations.running import end_of
from glora_search.operations.served_exports import ServedExport, served_exports, why_not
from glora_search.operations.serving import (
    CREATED,
    STARTING,
    served_studies,
    starter_of,
    table_of,
    unlaunched_status,
)
from glora_search.recording import Holder
from glora_search.server.page.access import visitor_of
from glora_search.server.page.figures import spark_path
from glora_search.server.page.rendering import STATIC, render, static_file
from glora_search.server.page.routing import PageRoute
from glora_search.server.page.shown import ShownStudies, ShownStudy
from glora_search.server.page.states import State, state_of
from glora_search.server.page.views import (
    Row,
    comparison_view,
    frame_view,
    measure_of,
    page_of,
    row_of,
    unlaunched_view,
)
from glora_search.server.service import Service
from glora_search.study.errors import StudyNotFoundError

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_MOST_COMPARED: Final = 8  # as many lines as the style sheet tells apart
_LOG_TAIL: Final = 6000
_READ_AT_ONCE: Final = 1500  # outcomes; to read and draw 10,000 takes two seconds
_SOON_S: Final = 3
_DID: Final = {
    "start": "The study is being started. That takes a moment: backbone and data are read first.",
    "stop": "The study was asked to stop. It ends once what has arrived is written.",
    "resume": "The study is being resumed. That takes a moment: backbone and data are read first.",
    "export": "The export is being made. It can be downloaded further down once it is there.",
}


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
    return render("studies", request, here="studies", rows=_rows(request))


@router.get("/live")
def studies_live(request: Request) -> HTMLResponse:
    """What changes on the list of studies."""
    return render("studies_live", request, rows=_rows(request))


@router.get("/studies/{name}")
def study(request: Request, name: str, did: str = "") -> HTMLResponse:
    """A study. A large one that was not read before comes in two parts, the frame at once."""
    values = _frame(request, name) or _study(request, name)
    return render("study", request, here="study", notice=_DID.get(did), **values)


@router.get("/studies/{name}/live")
def study_live(request: Request, name: str) -> HTMLResponse:
    """What changes on the page of a study."""
    return render("study_live", request, **_study(request, name))


@router.get("/compare")
def compare(request: Request) -> HTMLResponse:
    """Two studies or more, side by side."""
    asked = list(dict.fromkeys(request.query_params.getlist("study")))
    chosen = asked[:_MOST_COMPARED]
    service: Service = request.app.state.service
    choices = [s.name for s in service.database.list_studies() if s.n_complete]
    problem, shown = None, {}
    missing = [name for name in chosen if name not in choices]
    if missing:
        problem = f"There is no study {missing[0]!r} that has been evaluated; choose others below."
    elif len(chosen) == 1:
        problem = "A comparison needs two studies; choose another one below."
    elif chosen:
        if len(asked) > len(chosen):
            problem = f"At most {_MOST_COMPARED} studies are compared; the first of them are shown."
        found = [_launched(request, name) for name in chosen]
        shown = comparison_view([(study.snapshot, state) for study, state, _ in found])
    values: dict[str, Any] = {
        "columns": (),
        "charts": (),
        "growths": (),
        "front": None,
        "differing": (),
        **shown,
    }
    return render(
        "compare",
        request,
        status=404 if missing else 200,
        here="compare",
        problem=problem,
        chosen=chosen,
        choices=choices,
        **values,
    )


def _rows(request: Request) -> list[Row]:
    service: Service = request.app.state.service
    rows = []
    for listed in served_studies(service.database).studies:
        said = None
        if not listed.held_by and "/" not in listed.study:
            said = service.progress(listed.study, renew=False)  # a list asks for no hundred logs
        rows.append(row_of(listed, spark=_spark(request, listed), said=said))
    return rows


def _spark(request: Request, listed: Any) -> str:
    """The course of a study's best; drawn again only where it has grown."""
    measure = measure_of(listed)
    if measure is None or not listed.evaluated:
        return ""
    kept: dict[str, tuple[Any, str]] = request.app.state._state.setdefault("sparks", {})
    key = (listed.evaluated, listed.best)
    if kept.get(listed.study, (None, ""))[0] != key:
        values = request.app.state.service.database.open_study(listed.study).values()
        path = spark_path(values, higher_is_better=measure.higher_is_better)
        kept[listed.study] = (key, path)
    return kept[listed.study][1]


@dataclass(frozen=True)
class _Facts:
    """What the page shows of a study besides its data."""

    position: int
    has_export: bool
    exports: Sequence[ServedExport]
    can_export: bool


def _state(
    service: Service, name: str, attributes: Mapping[str, Any], holder: Holder | None, failed: int
) -> tuple[State, str | None]:
    """The state of a study that was launched, and who drives it or is starting it."""
    driver = holder or starter_of(service.database, name)
    held_by = None if driver is None else str(driver)
    state = state_of(
        STARTING if driver is not None and holder is None else attributes.get("status"),
        held_by=held_by,
        failed=failed,
        max_failures=_search_of(attributes).get("max_failures"),
        said=service.progress(name),
    )
    return state, held_by


def _launched(request: Request, name: str) -> tuple[ShownStudy, State, _Facts]:
    service: Service = request.app.state.service
    kept: ShownStudies = request.app.state._state.setdefault("shown", ShownStudies())
    view = service.view(name)
    state, held_by = _state(service, name, view.attributes, view.holder, view.status.failed)
    shown = kept.of(view, held_by)
    export = shown.snapshot.facts.export
    facts = _Facts(
        view.position,
        has_export=export is not None and export.directory is not None,
        exports=served_exports(service.settings.root, view),
        can_export=why_not(view) is None,
    )
    return shown, state, facts


def _frame(request: Request, name: str) -> dict[str, Any] | None:
    """The page of a large study without its data, which the script then fetches; None for others.

    Reading and drawing 10,000 subnets takes two seconds, once in the life of a server.
    """
    service: Service = request.app.state.service
    seen: set[str] = request.app.state._state.setdefault("pages_seen", set())
    if name in seen or "all" in request.query_params:
        return None
    try:
        record = service.database.open_study(name)
    except StudyNotFoundError:
        return None
    tally = record.tally()
    seen.add(name)
    if tally.n_complete + tally.n_failed <= _READ_AT_ONCE:
        return None
    attributes = record.attributes
    state, _ = _state(service, name, attributes, record.holder, tally.n_failed)
    return {
        **frame_view(name, tally.n_complete, tally.n_failed, attributes.get("study") or {}),
        **_around(request, name, state, ""),
        "events": f"/api/v1{page_of(name)}/events?since={tally.n_complete + tally.n_failed}",
        "downloads": [],
        "busy": None,
        "now": True,
    }


def _search_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section [search] of the stored study; empty where none is stored."""
    study = attributes.get("study")
    search = study.get("search") if isinstance(study, Mapping) else None
    return search if isinstance(search, Mapping) else {}


def _study(request: Request, name: str) -> dict[str, Any]:
    service: Service = request.app.state.service
    try:
        shown, state, facts = _launched(request, name)
    except StudyNotFoundError as not_found:
        return _unlaunched(request, name, not_found)
    address = f"/api/v1{page_of(name)}"
    downloads = []
    if facts.has_export:
        downloads.append({"label": "Download the export", "href": f"{address}/export"})
    if shown.snapshot.trials:
        downloads.append({"label": "Download the report", "href": f"{address}/report"})
    verb = "stop" if state.css == "running" else "" if state.css == "finished" else "resume"
    around = _around(request, name, state, verb)
    if any(export.state == "running" for export in facts.exports):
        around["every"] = _SOON_S
    return {
        **shown.values,
        **around,
        "events": f"{address}/events?since={facts.position}",
        "downloads": downloads,
        "exports": facts.exports,
        "exports_at": f"{address}/export",
        "may_export": facts.can_export and visitor_of(request).changes,
        "busy": service.busy_workers(name) if state.word == "searching" else None,
        "asked": _workers(shown.snapshot.facts.study),
    }


def _workers(study: Mapping[str, Any]) -> int | None:
    """How many workers a study file asks for; None where it takes what is there, or none."""
    asked = (study.get("cluster") or {}).get("workers")
    return asked if isinstance(asked, int) and asked > 0 else None


def _unlaunched(request: Request, name: str, not_found: StudyNotFoundError) -> dict[str, Any]:
    """A study that was created and not launched yet."""
    service: Service = request.app.state.service
    try:
        status = unlaunched_status(service.database, name)
    except StudyNotFoundError:
        raise not_found from None  # it names similar ones
    said = service.progress(name)
    state = state_of(status.status, held_by=status.held_by, said=said)
    table = table_of(service.database, name) or {}
    return {
        **unlaunched_view(name, status.planned, table),
        **_around(request, name, state, "start" if status.status == CREATED else "stop"),
        "events": f"/api/v1{page_of(name)}/events",
        "downloads": [],
        "busy": None,
    }


def _around(request: Request, name: str, state: State, verb: str) -> dict[str, Any]:
    """State, buttons and log."""
    labels = {"start": "Start", "stop": "Stop", "resume": "Resume"}
    actions = []
    if verb and visitor_of(request).changes:
        actions.append({"verb": verb, "label": labels[verb], "quiet": verb == "stop"})
    return {
        "state": state,
        "every": 30 if state.is_over else _SOON_S,
        "exports": (),
        "may_export": False,
        "now": False,
        "actions": actions,
        "log": _log(request.app.state.service, name),
    }


def _log(service: Service, name: str) -> str:
    """The last lines of a study's log; empty where there is none of a job or on this machine."""
    if text := service.job_log(name):
        return text
    path = service.log(name)
    if path is None:
        return ""
    text = end_of(path, _LOG_TAIL)
    return text if path.stat().st_size <= _LOG_TAIL else text.partition("\n")[2]
