"""Errors as answers: problem details (RFC 9457), one object for whatever went wrong."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from glora_search.server.headers import HEADERS
from glora_search.study.errors import (
    ArtifactError,
    ClusterError,
    DamagedStudyError,
    Mistake,
    StorageError,
    StudyExistsError,
    StudyFileError,
    StudyHeldError,
    StudyNotFoundError,
    StudyNotRunningError,
    SubnetNotFoundError,
    one_line,
)
from search_spaces import GLoRASearchError

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_STATUS: Final[tuple[tuple[type[GLoRASearchError], int], ...]] = (  # the first that fits
    (StudyFileError, 422),
    (StudyNotFoundError, 404),
    (SubnetNotFoundError, 404),
    (StudyExistsError, 409),
    (StudyHeldError, 409),
    (StudyNotRunningError, 409),
    (DamagedStudyError, 409),
    (StorageError, 503),
    (ArtifactError, 404),
    (ClusterError, 502),
    (GLoRASearchError, 409),
)

SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "urn:glora-search:problem:KIND"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do."},
        "mistakes": {
            "type": "array",
            "description": "Every mistake of the study file or of the request.",
            "items": {
                "type": "object",
                "required": ["key", "detail"],
                "properties": {
                    "key": {"type": "string"},
                    "detail": {"type": "string"},
                    "line": {"type": ["integer", "null"], "description": "Of a TOML document."},
                },
            },
        },
    },
}


class RefusedError(GLoRASearchError):
    """A request that is refused, whatever the study.

    Args:
        status: Of the answer.
        detail: What is wrong, and what to do.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the problems that a route may answer with."""
    common = (400, 401, 403, 404, 405, 413, 415, 421, 422, 503)
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": SCHEMA}},
        }
        for status in sorted({*common, *statuses})
    }


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    mistakes: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An answer that tells what went wrong."""
    title = HTTPStatus(status).phrase
    document: dict[str, Any] = {
        "type": f"urn:glora-search:problem:{kind or title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if mistakes is not None:
        document["mistakes"] = mistakes
    return JSONResponse(document, status, headers=headers, media_type=MEDIA_TYPE)


def error_problem(error: GLoRASearchError, lines: dict[str, int] | None = None) -> JSONResponse:
    """The answer for an error of this project.

    Args:
        error: What was raised.
        lines: For keys of a TOML document their lines.
    """
    if isinstance(error, RefusedError):
        return problem(error.status, str(error))
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    kind = _kebab(type(error).__name__.removesuffix("Error"))
    mistakes = None
    if isinstance(error, StudyFileError):
        mistakes = [_mistake(mistake, lines or {}) for mistake in error.mistakes]
    return problem(status, str(error), kind=kind, mistakes=mistakes)


def tell_problems(app: FastAPI) -> None:
    """Let an application answer with problem details, whatever goes wrong."""

    @app.exception_handler(GLoRASearchError)
    def _ours(_: Request, error: GLoRASearchError) -> JSONResponse:
        return error_problem(error)

    @app.exception_handler(RequestValidationError)
    def _request(_: Request, error: RequestValidationError) -> JSONResponse:
        mistakes = [
            {"key": ".".join(map(str, each["loc"][1:])), "detail": each["msg"], "line": None}
            for each in error.errors()
        ]
        told = "; ".join(f"{each['key']}: {each['detail']}" for each in mistakes)
        return problem(422, told, kind="request", mistakes=mistakes)

    @app.exception_handler(HTTPException)
    def _http(_: Request, error: HTTPException) -> JSONResponse:
        headers = None if error.headers is None else dict(error.headers)
        return problem(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(Exception)
    def _unexpected(_: Request, error: Exception) -> JSONResponse:
        _log.error("%s: %s", type(error).__name__, one_line(error, limit=500))
        told = "an unexpected error; see the log of the server"
        return problem(500, told, headers=HEADERS)  # it leaves past all other checks


def _mistake(mistake: Mistake, lines: dict[str, int]) -> dict[str, Any]:
    return {"key": mistake.key, "detail": mistake.text, "line": line_of(mistake.key, lines)}


def line_of(key: str, lines: dict[str, int]) -> int | None:
    """The line of a key, or of the nearest table around it; None where it is not known."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return None


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
