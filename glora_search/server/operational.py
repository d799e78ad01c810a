"""Routes for those who run the server: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from glora_search.operations.serving import CREATED, STARTING, served_studies
from glora_search.operations.status import ListedStudy
from glora_search.server.problems import told
from glora_search.server.service import Served, Service
from search_spaces import GLoRASearchError

router = APIRouter(tags=["operations"], responses=told())
metrics_router = APIRouter(tags=["operations"], responses=told())


class HealthShape(BaseModel):
    """The server lives."""

    status: Literal["ok"]


class ReadyShape(BaseModel):
    """Whether studies can be read and started."""

    ready: bool
    database: str = Field(description="ok, or what is wrong.")
    ray: str = Field(description="ok, not used, or what is wrong.")


@router.get("/health", response_model=HealthShape, summary="Does the server live?")
async def health() -> dict[str, str]:
    """Answers whenever the server does; needs no token, and waits for no other request."""
    return {"status": "ok"}


@router.get(
    "/ready",
    response_model=ReadyShape,
    responses={503: {"model": ReadyShape, "description": "Not ready."}},
    summary="Do database and cluster answer?",
)
def ready(service: Served) -> JSONResponse:
    """Whether the database answers, and the cluster where studies run on one."""
    found: dict[str, Any] = {"database": "ok", "ray": "not used"}
    try:
        service.database.services()
    except GLoRASearchError as error:
        found["database"] = str(error)
    if service.settings.address is not None:
        try:
            service.runner.check()
            found["ray"] = "ok"
        except GLoRASearchError as error:
            found["ray"] = str(error)
    is_ready = found["database"] == "ok" and found["ray"] in ("ok", "not used")
    return JSONResponse({"ready": is_ready, **found}, 200 if is_ready else 503)


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(service: Served) -> Response:
    """What the database knows of every study, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Studies(service))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Studies:
    """Reads the database when it is asked to collect."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The metrics of all studies."""
        found = served_studies(self._service.database).studies
        studies = [s for s in found if not s.study.endswith("/sweep") and s.fault is None]
        label = ["study"]
        outcomes = CounterMetricFamily(
            "glora_search_evaluations", "Evaluations that are recorded.", labels=["study", "state"]
        )
        queue = GaugeMetricFamily(
            "glora_search_queue", "Evaluations that a running study has left.", labels=label
        )
        running = GaugeMetricFamily(
            "glora_search_running", "1 where a process drives the study.", labels=label
        )
        best = GaugeMetricFamily("glora_search_best", "The best fitness so far.", labels=label)
        busy = GaugeMetricFamily(
            "glora_search_busy_workers",
            "Seconds of evaluation a second, in evaluations recorded during the last minute.",
            labels=label,
        )
        share = GaugeMetricFamily(
            "glora_search_busy_share",
            "Busy workers divided by those that the study asks for; by those of the last minute "
            "where it asks for as many as there are.",
            labels=label,
        )
        workers = GaugeMetricFamily(
            "glora_search_workers", "Workers that a running study asks for.", labels=label
        )
        flush = GaugeMetricFamily(
            "glora_search_flush_seconds",
            "What the last flush of a running study took, told when its lease is renewed.",
            labels=label,
        )
        for study in studies:
            outcomes.add_metric([study.study, "complete"], study.evaluated)
            outcomes.add_metric([study.study, "failed"], study.failed)
            running.add_metric([study.study], float(study.held_by is not None))
            if study.best is not None:
                best.add_metric([study.study], study.best)
            if study.held_by is not None:
                queue.add_metric([study.study], _left(study))
                if study.workers is not None:
                    workers.add_metric([study.study], study.workers)
                if study.flush_s is not None:
                    flush.add_metric([study.study], study.flush_s)
                if study.status not in (CREATED, STARTING):
                    shares = self._service.busy_workers(study.study)
                    busy.add_metric([study.study], sum(shares.values()))
                    if n_workers := study.workers or len(shares):
                        share.add_metric([study.study], sum(shares.values()) / n_workers)
        yield from (outcomes, queue, running, best, busy, share, workers, flush)


def _left(study: ListedStudy) -> int:
    return max(0, (study.planned or 0) - study.evaluated - study.failed)
