"""The forms: log in and out; submit, start, stop and resume a study; export a subnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import Headers

from glora_search.operations.serving import start_study, stop_study
from glora_search.server.exports import begin_picked
from glora_search.server.page.access import (
    check_change,
    forget_token,
    form_of,
    keep_token,
    own_path,
)
from glora_search.server.page.rendering import render
from glora_search.server.page.routing import PageRoute
from glora_search.server.page.submitting import Checked, check_text
from glora_search.server.page.views import page_of
from glora_search.server.problems import RefusedError
from glora_search.server.security import allowed
from glora_search.server.service import Service
from glora_search.server.shapes import MAX_CHANGE_LENGTH, MAX_CHANGES, ChangesShape
from glora_search.server.studies import resume_changed
from glora_search.study.errors import StudyExistsError
from glora_search.study.examples import example_names, load_example
from glora_search.study.picking import Pick

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_FIRST: Final = "digits"


class _Wanted(BaseModel):
    """A form that asks for an export."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    pick: Pick | None = None
    max_params: Annotated[int, Field(ge=0, le=10**15)] | None = None


@router.get("/login")
def login(request: Request, next: str = "/") -> Response:  # noqa: A002 - the address shows it
    """The form for the token."""
    return render("login", request, here="login", problem=None, next=own_path(next))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Keep the token, if it is one."""
    form = await form_of(request)
    token, target = form.get("token", "").strip(), own_path(form.get("next"))
    bearer = Headers({"authorization": f"Bearer {token}"})
    plain = token.isascii() and token.isprintable()
    if not plain or not allowed(bearer, request.app.state.settings).reads:
        problem = "That is no token of this server."
        return render("login", request, status=401, here="login", problem=problem, next=target)
    answer = RedirectResponse(target, status_code=303)
    return keep_token(answer, token, secure=request.url.scheme == "https")


@router.post("/logout")
def log_out() -> Response:
    """Forget the token."""
    return forget_token(RedirectResponse("/login", status_code=303))


@router.get("/new")
def new(request: Request, example: str = "") -> Response:
    """The form for a study file."""
    names = example_names()
    shown = example if example in names else _FIRST if _FIRST in names else names[0]
    return _new(request, load_example(shown), example=shown)


@router.post("/new")
async def submit(request: Request) -> Response:
    """Check a study file, and start it."""
    check_change(request)
    form = await form_of(request)
    text, start = form.get("text", "").replace("\r\n", "\n"), form.get("do") == "start"
    service: Service = request.app.state.service
    try:
        checked = await run_in_threadpool(check_text, service, text, submit=start)
    except StudyExistsError as error:
        return _new(request, text, problem=str(error), status=409)
    if checked.n_mistakes:
        count = "1 mistake" if checked.n_mistakes == 1 else f"{checked.n_mistakes} mistakes"
        problem = f"The study file has {count}; nothing was started."
        return _new(request, text, problem=problem, checked=checked, status=422)
    if not start:
        return _new(request, text, checked=checked)
    return _done(checked.name, "start")


@router.post("/studies/{name}/start")
def start(request: Request, name: str) -> Response:
    """Launch a study that was created."""
    return _do(request, name, "start", lambda s: start_study(s.database, name, s.runner))


@router.post("/studies/{name}/resume")
async def resume(request: Request, name: str) -> Response:
    """Go on with a study; with overrides, of which the form has one a line."""
    check_change(request)
    lines = (await form_of(request)).get("overrides", "").splitlines()
    given = [line.strip() for line in lines if line.strip()]
    try:
        changes = ChangesShape(overrides=given)
    except ValidationError:
        bounds = f"at most {MAX_CHANGES} changes, each of {MAX_CHANGE_LENGTH:,} characters at most"
        raise RefusedError(422, bounds) from None
    service: Service = request.app.state.service
    await run_in_threadpool(resume_changed, service, name, changes.overrides)
    return _done(name, "resume")


@router.post("/studies/{name}/export")
async def export(request: Request, name: str) -> Response:
    """Begin to export a subnet: by its digest, as a pick, or by its size."""
    check_change(request)
    form = await form_of(request)
    try:
        wanted = _Wanted.model_validate({k: v for k, v in form.items() if v})
    except ValidationError:
        raise RefusedError(422, "say which subnet: its digest, a pick, or its size") from None
    service: Service = request.app.state.service
    await run_in_threadpool(begin_picked, service, name, **wanted.model_dump())
    return RedirectResponse(f"{page_of(name)}?did=export#exports", status_code=303)


@router.post("/studies/{name}/stop")
def stop(request: Request, name: str) -> Response:
    """Interrupt a study."""
    return _do(request, name, "stop", lambda s: stop_study(s.database, name, s.settings.address))


def _do(request: Request, name: str, verb: str, act: Callable[[Service], object]) -> Response:
    check_change(request)
    act(request.app.state.service)
    return _done(name, verb)


def _done(name: str, verb: str) -> Response:
    return RedirectResponse(f"{page_of(name)}?did={verb}", status_code=303)


def _new(
    request: Request,
    text: str,
    *,
    example: str = "",
    problem: str | None = None,
    checked: Checked | None = None,
    status: int = 200,
) -> Response:
    return render(
        "new",
        request,
        status=status,
        here="new",
        text=text,
        example=example,
        examples=example_names(),
        problem=problem,
        checked=checked,
    )
