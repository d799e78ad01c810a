"""What the server's routes take on a large study, beside the API of optuna-dashboard on the same.

    python tests/benchmarks/bench_service.py [--candidates 10000] [--requests 50]
        [--rival-requests 3] [--patience-s 600]

Candidates of 240 genes in an SQLite file, a log of 1 MB and an export of 24 MB; both servers are
processes of their own and are asked in turns over one connection each. The first request for a
study reads all of it once and is told apart as `first_s`; so is the first page, the first zip,
which packs the export, and the report, which draws 10,000 candidates anew each time. Of the stream
of events the time to its first event is told. `ready_s` is from the start of the process to its
first answer. Prints one JSON line: seconds (p50, p95) of each route, ratios of the rival's median
to ours, resident sets. Where the rival has not given the study after --patience-s, that is told in
the place of a ratio.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import optuna
from measuring import progress, report
from served_study import SPACE, STUDY, Server, our_server, serving, write_study

from glora_search.operations.running import LOG
from glora_search.recording import Database
from glora_search.study.examples import load_example

_WEIGHTS = "model.safetensors"
_CALM_S = 0.5  # the stream goes on to send 10,000 outcomes, which keeps the server busy for a while


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument(
        "--rival-requests", type=int, default=3, help="of each kind; 0 leaves the rival out"
    )
    parser.add_argument(
        "--patience-s", type=float, default=600, help="after which the rival's study is given up"
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'studies.db'}"
        digest = write_study(url, options.candidates)
        _write_files(url, folder / "runs" / STUDY)
        progress("the study is written")
        with our_server(url, folder / "runs") as ours:
            figures = _ours(ours, digest, options.requests)
            progress("every route was asked")
            if options.rival_requests:
                words = ["-m", "optuna_dashboard._cli", url, "--host", "127.0.0.1"]
                with serving(words, "/api/studies") as rival:
                    requests, patience_s = options.rival_requests, options.patience_s
                    figures |= _beside(ours, rival, requests, patience_s)
            figures["ready_s"], figures["memory_bytes"] = round(ours.ready_s, 2), ours.memory
    report("service", {"candidates": options.candidates, "genes": len(SPACE.genes), **figures})


def _ours(server: Server, digest: str, n: int) -> dict[str, Any]:
    """Each route of ours."""
    study = f"/api/v1/studies/{STUDY}"
    paths = {
        "list": "/api/v1/studies",
        "status": study,
        "outcomes, 100": f"{study}/outcomes?limit=100",
        "outcomes, the last": f"{study}/outcomes?since=1000000000",
        "history": f"{study}/history",
        "front": f"{study}/front",
        "winner": f"{study}/winner",
        "subnet": f"{study}/subnets/{digest}",
        "logs": f"{study}/logs",
        "exports": f"{study}/exports",
        "artifacts": f"{study}/artifacts",
        "artifact, 1 MB of 24": f"{study}/artifacts/{_WEIGHTS}",
        "zip, 1 MB of 24": f"{study}/export",
        "ready": "/api/v1/ready",
        "openapi": "/api/v1/openapi.json",
        "metrics": "/metrics",
        "page: studies": "/",
        "page: study": f"/studies/{STUDY}",
        "page: study, what changes": f"/studies/{STUDY}/live",
        "page: compare": f"/compare?study={STUDY}",
        "page: new": "/new",
    }
    headers = {name: {"Range": "bytes=0-1048575"} for name in paths if "1 MB" in name}
    example = load_example("digits").encode()
    calls: dict[str, Callable[[], object]] = {
        name: partial(_get, server, path, headers.get(name)) for name, path in paths.items()
    }
    calls["validate"] = lambda: server.http.post(
        "/api/v1/studies/validate", content=example, headers={"Content-Type": "application/toml"}
    ).raise_for_status()
    calls["events, the first"] = lambda: _first_event(server, f"{study}/events")
    firsts = {
        "study": calls["status"],
        "page": calls["page: study"],
        "zip": calls["zip, 1 MB of 24"],
        "report": partial(_get, server, f"{study}/report"),
    }
    first = {name: round(_timed(call), 3) for name, call in firsts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(n):
        for name, call in calls.items():
            seconds[name].append(_timed(call))
        time.sleep(_CALM_S)
    return {
        "first_s": first,
        "requests": n,
        "seconds": {name: _quantiles(times) for name, times in seconds.items()},
    }


def _write_files(url: str, folder: Path) -> None:
    """The log of a study, and an export that the database knows of."""
    export = folder / "export"
    export.mkdir(parents=True)
    (folder / LOG).write_bytes(b"searching: 9/10, 1 s best val loss 0.1\n" * 25_000)
    (export / _WEIGHTS).write_bytes(random.Random(0).randbytes(24 << 20))
    with Database(url) as database:
        record = database.open_study(STUDY)
        with record.hold():
            record.set_attribute("export", {"directory": str(export)})


def _get(server: Server, path: str, headers: dict[str, str] | None = None) -> None:
    server.http.get(path, headers=headers).raise_for_status()


def _first_event(server: Server, path: str) -> None:
    with server.http.stream("GET", path) as answer:
        answer.raise_for_status()
        next(line for line in answer.iter_lines() if line.startswith("data:"))


def _beside(ours: Server, rival: Server, n: int, patience_s: float) -> dict[str, Any]:
    """What both can do: the list, and a study with all of its trials."""

    def all_outcomes() -> None:
        since, more = 0, True
        while more:
            path = f"/api/v1/studies/{STUDY}/outcomes?since={since}&limit=1000"
            page = ours.http.get(path).raise_for_status().json()
            since, more = page["next"], page["more"]

    def rivals_study() -> None:
        path = f"/api/studies/{key}?after=0"
        rival.http.get(path, timeout=patience_s).raise_for_status().json()

    (found,) = rival.http.get("/api/studies").raise_for_status().json()["study_summaries"]
    key = found["study_id"]
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "list": (
            lambda: ours.http.get("/api/v1/studies").raise_for_status(),
            lambda: rival.http.get("/api/studies").raise_for_status(),
        ),
        "all outcomes": (all_outcomes, rivals_study),
    }
    figures = {}
    for name, (mine, theirs) in calls.items():
        figures[name] = _pairs(mine, theirs, n)
        progress(f"{name}: {figures[name]}")
    return {
        "beside_optuna_dashboard": figures,
        "optuna_dashboard_ready_s": round(rival.ready_s, 2),
        "optuna_dashboard_memory_bytes": rival.memory,
    }


def _pairs(mine: Callable[[], object], theirs: Callable[[], object], n: int) -> dict[str, float]:
    """Medians of `n` pairs of calls, or after how long the rival was given up."""
    pairs = []
    for _ in range(n):
        ours_s, begin = _timed(mine), time.perf_counter()
        try:
            theirs()
        except httpx.TimeoutException:
            given_up_s = round(time.perf_counter() - begin, 1)
            return {"ours_s": round(ours_s, 4), "optuna_dashboard_given_up_after_s": given_up_s}
        pairs.append((ours_s, time.perf_counter() - begin))
    return {
        "ours_s": round(statistics.median(pair[0] for pair in pairs), 4),
        "optuna_dashboard_s": round(statistics.median(pair[1] for pair in pairs), 4),
        "ratio": round(statistics.median(b / a for a, b in pairs), 2),
    }


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 4), "p95": round(p95, 4)}


if __name__ == "__main__":
    main()
