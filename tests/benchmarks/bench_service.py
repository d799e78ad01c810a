"""What the server's routes take on a large study, beside the API of optuna-dashboard on the same.

    python tests/benchmarks/bench_service.py [--candidates 10000] [--requests 50]
        [--rival-requests 3] [--patience-s 600]

Candidates of 240 genes in an SQLite file; both servers are processes of their own and are asked in
turns over one connection each. The first request for a study reads all of it once and is told
apart as `first_s`. `ready_s` is from the start of the process to its first answer. Prints one JSON
line: seconds (p50, p95) of each route, ratios of the rival's median to ours, resident sets. Where
the rival has not given the study after --patience-s, that is told in the place of a ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import optuna
from measuring import progress, report
from served_study import SPACE, STUDY, Server, our_server, serving, write_study


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
        progress("the study is written")
        with our_server(url, folder / "runs") as ours:
            figures = _ours(ours, digest, options.requests)
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
        "ready": "/api/v1/ready",
        "metrics": "/metrics",
    }
    first = _timed(lambda: server.http.get(study).raise_for_status())
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(n):
        for name, path in paths.items():
            seconds[name].append(_timed(lambda path=path: server.http.get(path).raise_for_status()))
    return {
        "first_s": round(first, 3),
        "requests": n,
        "seconds": {name: _quantiles(times) for name, times in seconds.items()},
    }


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
