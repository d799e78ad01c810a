"""`glora-search serve` in a process of a test's own."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fork_server import Running, glora_search

import glora_search as package
from glora_search.client import Client, ServerUnavailableError


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def own_server(folder: Path, port: int) -> Iterator[Client]:
    """A server that works in a folder and reads what is in its folder `data`, until the block
    ends; a client of it.
    """
    source = str(Path(package.__file__).parents[1])  # what the study's own process imports
    running = Running(
        glora_search,
        *("serve", "--port", str(port), "--root", "runs", "--data-root", "data"),
        folder=folder,
        environment={"PYTHONPATH": source},
    )
    with Client(f"http://127.0.0.1:{port}", timeout_s=300) as client:
        try:
            while True:
                try:
                    client.health()
                    break
                except ServerUnavailableError:
                    assert not running.is_over, running.errors
                    time.sleep(0.05)
            yield client
        finally:
            running.signal(signal.SIGINT)
            running.wait()
