"""A server in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fork_server import Running, glora_search

from glora_search.operations.running import STUDY_FILE
from glora_search.recording.storage_url import ENVIRONMENT
from glora_search.server.app import make_app
from glora_search.server.settings import ServerSettings
from glora_search.study.toml_text import toml_text


@contextmanager
def serving(app: Callable[..., Any], port: int = 0) -> Iterator[str]:
    """An application on a real port, in a thread; its URL."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server that restarts
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `serve` has it
        bound.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class ForkedStudies:
    """The runner of a server whose studies are the command line in forked processes: what each
    costs is a fork.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def launch(self, name: str, table: dict[str, Any]) -> int:
        folder = self._settings.root / name
        folder.mkdir(exist_ok=True)
        (folder / STUDY_FILE).write_text(toml_text(table))
        return self._begin(folder, "launch", STUDY_FILE)

    def resume(self, name: str, overrides: Sequence[str] = ()) -> int:
        words = [word for override in overrides for word in ("--set", override)]
        return self._begin(self._settings.root / name, "resume", name, *words)

    def _begin(self, folder: Path, *words: str) -> int:
        variables = {ENVIRONMENT: self._settings.storage}
        self.running = Running(glora_search, *words, folder=folder, environment=variables)
        return self.running.pid


@contextmanager
def serving_forks(settings: ServerSettings) -> Iterator[tuple[str, ForkedStudies]]:
    """The address of a server on the loopback, and what runs its studies."""
    app = make_app(settings)
    runner = ForkedStudies(settings)
    app.state.service.runner = runner
    with serving(app) as address:
        yield address, runner
