"""What the server's routes take on a large study, beside the API of optuna-dashboard on the same.

    python tests/benchmarks/bench_service.py [--candidates 10000] [--requests 50]

Candidates of 240 genes in an SQLite file; both servers are processes of their own and are asked in
turns over one connection each. The first request for a study reads all of it once and is told
apart as `first_s`. `ready_s` is from the start of the process to its first answer. Prints one JSON
line: seconds (p50, p95) of each route, ratios of the rival's median to ours, resident sets.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import optuna
import psutil
from measuring import progress, report

from glora_search.recording import Database
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace, load_preset

_NAMES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_SPACE = SearchSpace(
    [LayerSpec(f"blocks.{k}.{name}", 768, 768, bias=True) for k in range(12) for name in _NAMES],
    load_preset("mixed").choices,
)
_GENERATION = 50
_STUDY = "large"


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument(
        "--rival-requests", type=int, default=3, help="of each kind; 0 leaves the rival out"
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'studies.db'}"
        digest = _write(url, options.candidates)
        progress("the study is written")
        words = ["-m", "glora_search", "serve", "--storage", url, "--root", str(folder / "runs")]
        with _server(words, "/api/v1/health") as ours:
            figures = _ours(ours, digest, options.requests)
            if options.rival_requests:
                words = ["-m", "optuna_dashboard._cli", url, "--host", "127.0.0.1"]
                with _server(words, "/api/studies") as rival:
                    figures |= _beside(ours, rival, options.rival_requests)
            figures["ready_s"], figures["memory_bytes"] = round(ours.ready_s, 2), ours.memory
    report("service", {"candidates": options.candidates, "genes": len(_SPACE.genes), **figures})


@dataclass(frozen=True)
class _Server:
    """A server that answers.

    Args:
        http: A connection.
        process: Of the server.
        ready_s: From its start to its first answer.
    """

    http: httpx.Client
    process: psutil.Process
    ready_s: float

    @property
    def memory(self) -> int:
        """Its resident set, bytes."""
        return int(self.process.memory_info().rss)


@contextmanager
def _server(words: list[str], path: str) -> Iterator[_Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.perf_counter()
    command = [sys.executable, *words, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600)
    try:
        while not _answers(http, path):
            if process.poll() is not None:
                raise RuntimeError(f"it does not start: {' '.join(command)}")
            time.sleep(0.02)
        yield _Server(http, psutil.Process(process.pid), time.perf_counter() - begin)
    finally:
        http.close()
        process.terminate()
        process.wait()


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.TransportError:
        return False


def _ours(server: _Server, digest: str, n: int) -> dict[str, Any]:
    """Each route of ours."""
    study = f"/api/v1/studies/{_STUDY}"
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


def _beside(ours: _Server, rival: _Server, n: int) -> dict[str, Any]:
    """What both can do: the list, and a study with all of its trials."""

    def all_outcomes() -> None:
        since, more = 0, True
        while more:
            path = f"/api/v1/studies/{_STUDY}/outcomes?since={since}&limit=1000"
            page = ours.http.get(path).raise_for_status().json()
            since, more = page["next"], page["more"]

    def rivals_study() -> None:
        rival.http.get(f"/api/studies/{key}", params={"after": 0}).raise_for_status().json()

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
        pairs = [(_timed(mine), _timed(theirs)) for _ in range(n)]
        figures[name] = {
            "ours_s": round(statistics.median(pair[0] for pair in pairs), 4),
            "optuna_dashboard_s": round(statistics.median(pair[1] for pair in pairs), 4),
            "ratio": round(statistics.median(b / a for a, b in pairs), 2),
        }
        progress(f"{name}: {figures[name]}")
    return {
        "beside_optuna_dashboard": figures,
        "optuna_dashboard_ready_s": round(rival.ready_s, 2),
        "optuna_dashboard_memory_bytes": rival.memory,
    }


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 4), "p95": round(p95, 4)}


def _write(url: str, n: int) -> str:
    """Record a study of `n` random candidates; the digest of the first."""
    rng = random.Random(0)
    attributes = {
        "status": "searching",
        "study": {"search": {"population": _GENERATION, "generations": n // _GENERATION}},
    }
    first = ""
    with Database(url) as database:
        record = database.create_study(
            _STUDY, space=_SPACE, objectives=BY_LOSS, attributes=attributes
        )
        with record.hold():
            for begin in range(0, n, 500):
                batch = [_outcome(rng, number) for number in range(begin, min(n, begin + 500))]
                first = first or batch[0].candidate.subnet.digest
                record.flush(batch)
    return first


def _outcome(rng: random.Random, number: int) -> Outcome:
    subnet = _SPACE.sample(rng)
    candidate = Candidate(
        generation=number // _GENERATION,
        index=number % _GENERATION,
        operator="random",
        parents=(),
        subnet=subnet,
        n_params=_SPACE.n_params(subnet),
    )
    return Outcome(
        candidate=candidate,
        loss=round(rng.random(), 6),
        top1=rng.randrange(200) / 200,
        eval_s=0.1,
        worker=f"node-{number % 25}:1000",
    )


if __name__ == "__main__":
    main()
