"""A large study in a database, and servers of it as processes of their own."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil

from glora_search.recording import Database
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace, load_preset

_NAMES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SPACE = SearchSpace(
    [LayerSpec(f"blocks.{k}.{name}", 768, 768, bias=True) for k in range(12) for name in _NAMES],
    load_preset("mixed").choices,
)
POPULATION: Final = 50
STUDY: Final = "large"


@dataclass(frozen=True)
class Server:
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
    def address(self) -> str:
        """Without a slash at its end."""
        return str(self.http.base_url).rstrip("/")

    @property
    def memory(self) -> int:
        """Its resident set, bytes."""
        return int(self.process.memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """Processor time that it has spent."""
        return cpu_s(self.process)


def cpu_s(process: psutil.Process) -> float:
    """Processor time that a process has spent, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def serving(words: list[str], path: str) -> Iterator[Server]:
    """A server, from its first answer until the end of the context.

    Args:
        words: What Python runs, without the port.
        path: What it answers once it is ready.
    """
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
        yield Server(http, psutil.Process(process.pid), time.perf_counter() - begin)
    finally:
        http.close()
        process.terminate()
        process.wait()


@contextmanager
def our_server(url: str, root: Path) -> Iterator[Server]:
    """`glora-search serve` of a database."""
    words = ["-m", "glora_search", "serve", "--storage", url, "--root", str(root)]
    with serving(words, "/api/v1/health") as server:
        yield server


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.TransportError:
        return False


def write_study(url: str, n: int) -> str:
    """Record a study of `n` random candidates; the digest of the first."""
    rng = random.Random(0)
    attributes = {
        "status": "searching",
        "study": {"search": {"population": POPULATION, "generations": n // POPULATION}},
    }
    first = ""
    with Database(url) as database:
        record = database.create_study(
            STUDY, space=SPACE, objectives=BY_LOSS, attributes=attributes
        )
        with record.hold():
            for begin in range(0, n, 500):
                batch = [_outcome(rng, number) for number in range(begin, min(n, begin + 500))]
                first = first or batch[0].candidate.subnet.digest
                record.flush(batch)
    return first


def _outcome(rng: random.Random, number: int) -> Outcome:
    subnet = SPACE.sample(rng)
    candidate = Candidate(
        generation=number // POPULATION,
        index=number % POPULATION,
        operator="random",
        parents=(),
        subnet=subnet,
        n_params=SPACE.n_params(subnet),
    )
    return Outcome(
        candidate=candidate,
        loss=round(rng.random(), 6),
        top1=rng.randrange(200) / 200,
        eval_s=0.1,
        worker=f"node-{number % 25}:1000",
    )
