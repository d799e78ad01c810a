"""The application: its routes, and what stands before all of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI

from glora_search.server import events, exports, files, operational, results, studies
from glora_search.server.hub import Hub
from glora_search.server.problems import tell_problems
from glora_search.server.security import Security, needs_token
from glora_search.server.service import Service
from glora_search.server.settings import ServerSettings

PREFIX: Final = "/api/v1"

_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "Where the server was given a token. One for reading allows GET alone.",
}


def make_app(settings: ServerSettings) -> FastAPI:
    """The application of a server, as uvicorn or a test runs it.

    Args:
        settings: What the server is told; routes find it as `request.app.state.settings`.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.open_early()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="glora-search",
        description="Evolutionary search for GLoRA configurations of vision transformers.",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.service = service
    app.state.hub = Hub(service)
    tell_problems(app)
    tell_security(app)
    app.add_middleware(Security, settings=settings)
    for part in (studies, results, files, exports, events, operational):
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(operational.metrics_router)
    _include_page(app)
    return app


def tell_security(app: FastAPI) -> None:
    """Let the OpenAPI document say which routes need a token."""
    plain = app.openapi

    def told() -> dict[str, Any]:
        if app.openapi_schema is None:  # else it was told before
            document = plain()
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = _TOKEN
            for path, operations in document["paths"].items():
                if needs_token(path):
                    for operation in operations.values():
                        operation["security"] = [{"token": []}]
        return app.openapi_schema or {}

    app.openapi = told  # type: ignore[method-assign]


def _include_page(app: FastAPI) -> None:
    """The HTML page, where this installation has one."""
    if importlib.util.find_spec("glora_search.server.page") is not None:
        page = importlib.import_module("glora_search.server.page")
        app.include_router(page.router)
