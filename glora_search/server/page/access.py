"""Who may see a page and who may change something: the token in a cookie, for people.

A browser sends no header `Authorization` by itself, so a person brings the token once. It is kept
in a cookie that scripts cannot read and that no other site's request carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.responses import RedirectResponse

from glora_search.server.problems import RefusedError
from glora_search.server.security import COOKIE, allowed
from glora_search.server.settings import ServerSettings

_MONTH_S: Final = 30 * 24 * 3600


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page.

    Args:
        reads: Whether the data may be shown.
        changes: Whether studies may be submitted, stopped and resumed.
        logged_in: Whether a token was brought.
    """

    reads: bool
    changes: bool
    logged_in: bool


def visitor_of(request: Request) -> Visitor:
    """Who asks, by the token that the request brings."""
    settings: ServerSettings = request.app.state.settings
    rights = allowed(request.headers, settings)
    protected = settings.token is not None or settings.read_token is not None
    return Visitor(rights.reads, rights.changes, protected and rights.reads)


def check_change(request: Request) -> None:
    """Refuse a form of somebody who may not change anything, or of another site's page.

    Raises:
        RefusedError: The status of the answer is 401 or 403.
    """
    # Every browser says where a form comes from; where that is, was compared before.
    if not {"origin", "sec-fetch-site"} & set(request.headers.keys()):
        raise RefusedError(403, "a form says where it comes from, in the header Origin")
    visitor = visitor_of(request)
    if not visitor.reads:
        raise RefusedError(401, "log in first")
    if not visitor.changes:
        raise RefusedError(403, "this token may only read")


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, each once.

    Raises:
        RefusedError: It is no form.
    """
    try:
        text = (await request.body()).decode("utf-8")
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise RefusedError(400, "the form cannot be read") from None
    return {name: values[0] for name, values in fields.items()}


def keep_token(answer: RedirectResponse, token: str, *, secure: bool) -> RedirectResponse:
    """Let the browser keep a token.

    Args:
        answer: What it gets.
        token: The token, which was found to be right.
        secure: Whether the connection is encrypted; then the cookie never goes over another.
    """
    answer.set_cookie(
        COOKIE, token, max_age=_MONTH_S, httponly=True, samesite="strict", secure=secure
    )
    return answer


def forget_token(answer: RedirectResponse) -> RedirectResponse:
    """Let the browser forget the token."""
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def own_path(address: str | None) -> str:
    """An address to go on to, if it is a path of this server; else that of the first page."""
    address = address or "/"
    fine = address.startswith("/") and not address.startswith("//") and "\\" not in address
    return address if fine and address.isprintable() else "/"
