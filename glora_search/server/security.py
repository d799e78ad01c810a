"""What stands before every route: who may ask, from where, how much; and headers of all answers.

Pure ASGI, so that it sees a body before anything reads it and answers of every kind.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser

from glora_search.server.documents import JSON, TOML
from glora_search.server.headers import HEADERS
from glora_search.server.problems import RefusedError, error_problem
from glora_search.server.settings import LOOPBACK, ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

SAFE: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""

GUARDED: Final = ("/api/", "/metrics")
"""Where data are. What the page is made of (its frame, scripts and styles) holds none."""

OPEN: Final = ("/api/v1/health",)
"""What needs no token: it tells that the server lives, and nothing else."""


FORM: Final = "application/x-www-form-urlencoded"
"""What the page's forms send."""

COOKIE: Final = "glora_search_token"
"""Where the page keeps a person's token; scripts cannot read it, other sites cannot send it."""


def needs_token(path: str) -> bool:
    """Whether a path is answered only to who brings a token, where the server has one."""
    return path.startswith(GUARDED) and path not in OPEN


@dataclass(frozen=True)
class Rights:
    """What a request may do: read, and change something."""

    reads: bool
    changes: bool


class Security:
    """The application, with these checks before it.

    Args:
        app: What answers a request that passed.
        settings: What the server was told.
    """

    def __init__(self, app: Application, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        receiving = _Limited(receive, self._settings.max_body_bytes)
        try:
            self._check(scope)
            await self._app(scope, receiving, _with_headers(send, receiving))
            receiving.check()  # a framework may have taken the refusal for a body that is broken
        except RefusedError as refused:
            answer = error_problem(refused)
            if refused.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, _with_headers(send))

    def _check(self, scope: Message) -> None:
        headers = Headers(scope=scope)
        _check_host(headers, self._settings)
        if scope["method"] not in SAFE:
            _check_origin(headers)
            _check_type(headers, scope["path"])
        _check_length(headers, self._settings.max_body_bytes)
        if needs_token(scope["path"]):
            _check_token(headers, self._settings, reads=scope["method"] in SAFE)


def _check_host(headers: Headers, settings: ServerSettings) -> None:
    """Refuse a name that is not this server's: a page of that name may have been pointed here."""
    if len(headers.getlist("host")) != 1:
        raise RefusedError(400, "a request needs one header Host")
    host = _host_of(headers["host"])
    if host in (*LOOPBACK, *settings.allowed_hosts, settings.host):
        return
    if settings.on_loopback or settings.allowed_hosts:
        raise RefusedError(
            421, "this server does not answer to that name; --allowed-host adds one to its names"
        )


def _check_origin(headers: Headers) -> None:
    """Refuse what a page of another site sends in its reader's name."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "pages of other sites may not change anything here")
    origin = headers.get("origin")
    if origin is not None and _place_of(origin) != headers["host"].lower():
        raise RefusedError(403, "pages of other sites may not change anything here")


def _check_type(headers: Headers, path: str) -> None:
    """Where data are, only what no form can send; elsewhere the page's forms, which it guards."""
    accepted = (JSON, TOML) if path.startswith(GUARDED) else (FORM,)
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and media_type(headers) not in accepted:
        raise RefusedError(
            415, f"a body is {' or '.join(accepted)} here, and says so in Content-Type"
        )


def _check_length(headers: Headers, most: int) -> None:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise RefusedError(400, "the header Content-Length is no number")
    if int(length[:20]) > most:
        raise RefusedError(413, f"a body has at most {most} bytes")


def _check_token(headers: Headers, settings: ServerSettings, *, reads: bool) -> None:
    rights = allowed(headers, settings)
    if rights.changes or (rights.reads and reads):
        return
    if rights.reads:
        raise RefusedError(403, "this token may only read")
    raise RefusedError(401, "bring a token: Authorization: Bearer TOKEN")


def allowed(headers: Headers, settings: ServerSettings) -> Rights:
    """What a request may do, by the token in its header `Authorization`, or in the page's cookie.

    Tokens are compared in constant time, with every one there is.
    """
    if settings.token is None and settings.read_token is None:
        return Rights(reads=True, changes=True)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if not scheme:  # a browser that follows events sends no header of its own, but the cookie
        scheme, given = "bearer", cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    brought = given.strip().encode() if scheme.lower() == "bearer" else b""
    may_all = _equal(brought, settings.token)
    may_read = _equal(brought, settings.read_token)
    return Rights(reads=may_all or may_read, changes=may_all)


def _equal(brought: bytes, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(brought, token.encode())


def media_type(headers: Headers) -> str:
    """What the body is said to be, without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


class _Limited:
    """Counts a body that did not tell its length.

    Args:
        receive: Gives the body.
        most: Bytes.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._total = receive, most, 0

    async def __call__(self) -> Message:
        """The next part of the body."""
        message = await self._receive()
        self._total += len(message.get("body", b""))
        self.check()
        return message

    @property
    def is_over(self) -> bool:
        """Whether there was too much."""
        return self._total > self._most

    def check(self) -> None:
        """Raise RefusedError if there was too much."""
        if self.is_over:
            raise RefusedError(413, f"a body has at most {self._most} bytes")


def _with_headers(send: Send, received: _Limited | None = None) -> Send:
    """Add headers to an answer; it is dropped where the body was too large for one."""

    async def sending(message: Message) -> None:
        if received is not None and received.is_over:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
