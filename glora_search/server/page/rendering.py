"""Templates, and the static files with an address that changes when they do."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from glora_search.reporting import formatting
from glora_search.server.page.access import visitor_of

STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The static files, and what they are."""

_LARGE: Final = 2048  # bytes from which a page is compressed
_LEVEL: Final = 4  # of nine: the others are slower, and hardly smaller

_HEADERS: Final = {
    "Cache-Control": "no-store",
    # With the stricter "no-referrer" browsers send forms with "Origin: null", which is refused.
    "Referrer-Policy": "same-origin",
}


@cache
def static_file(name: str) -> bytes:
    """The content of a static file, one of STATIC."""
    return (resources.files("glora_search.server.page") / "static" / name).read_bytes()


@cache
def static_address(name: str) -> str:
    """The address of a static file; it holds a digest, so that it can be cached for ever."""
    return f"/static/{name}?v={hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def render(template: str, request: Request, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page.

    Args:
        template: Its file's name, without `.html.jinja`.
        request: What is answered.
        status: Of the answer.
        values: What the template shows.
    """
    visitor = visitor_of(request)
    text = (
        _environment()
        .get_template(f"{template}.html.jinja")
        .render(may_write=visitor.changes, logged_in=visitor.logged_in, **values)
    )
    # A file name that was no UTF-8 can be part of a recorded error as lone surrogates.
    body = text.encode("utf-8", errors="backslashreplace")
    headers = {**_HEADERS, "Vary": "Accept-Encoding"}
    if len(body) >= _LARGE and _takes_gzip(request):
        body, headers["Content-Encoding"] = gzip.compress(body, _LEVEL, mtime=0), "gzip"
    return HTMLResponse(body, status_code=status, headers=headers)


def _takes_gzip(request: Request) -> bool:
    """Whether the browser says that it reads gzip."""
    offers = request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    named = [quality for name, _, quality in (o.partition(";") for o in offers) if name == "gzip"]
    return any(not quality or quality.strip("q=0.") for quality in named)  # "q=0" is a refusal


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glora_search.server", "page/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["static"] = static_address
    environment.filters |= {
        "percent": formatting.percent,
        "with_error": formatting.percent_with_error,
        "with_interval": lambda found: formatting.percent_with_interval(**asdict(found)),
        "count": formatting.count,
        "loss": formatting.loss,
        "plural": formatting.plural,
        "seconds": formatting.seconds,
    }
    return environment
