"""What all routes of the page have in common: who may read, and errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from glora_search.server.page.access import visitor_of
from glora_search.server.page.rendering import render
from glora_search.server.page.views import page_of
from glora_search.server.problems import RefusedError, error_problem
from glora_search.study.errors import DamagedStudyError, StudyNotFoundError, one_line
from search_spaces import GLoRASearchError

_OPEN: Final = ("/static/", "/login")
"""What needs no token: it holds no data."""


class PageRoute(APIRoute):
    """A route of the page. Whoever may not read is sent to the login; errors are told in HTML."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with that around it."""
        handle = super().get_route_handler()

        async def handling(request: Request) -> Response:
            path = request.url.path
            if not path.startswith(_OPEN) and not visitor_of(request).reads:
                if request.method == "GET" and not path.endswith("/live"):
                    target = f"{path}?{request.url.query}" if request.url.query else path
                    return RedirectResponse(f"/login?next={quote(target)}", status_code=303)
                return error_page(request, RefusedError(401, "log in first"))
            try:
                return await handle(request)
            except GLoRASearchError as error:
                return error_page(request, error)

        return handling


def error_page(request: Request, error: GLoRASearchError) -> Response:
    """A page that tells what went wrong, with the status that the API would answer with."""
    status = error_problem(error).status_code
    has_no_page = isinstance(error, (StudyNotFoundError, DamagedStudyError))
    name = None if has_no_page else request.path_params.get("name")
    return render(
        "error",
        request,
        status=status,
        here="",
        message=one_line(error),
        study=None if name is None else page_of(name),
    )
