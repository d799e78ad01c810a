"""Routes of studies: list, create, start, stop, resume, delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from glora_search.operations import list_studies

router = APIRouter(tags=["studies"])


@router.get("/studies")
def studies(request: Request) -> dict[str, Any]:
    """All studies of the database."""
    request.app.state.service.database  # noqa: B018 - makes the tables where there are none
    found = list_studies(request.app.state.settings.storage)
    return {"studies": found.to_json()}
