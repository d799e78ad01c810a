"""Servers for tests: a real database with a study of synthetic outcomes, and a real application."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from recording_cases import SPACE, outcome
from server_here import serving

from glora_search.operations.running import ProcessRunner
from glora_search.recording import Database, StudyRecord
from glora_search.server.app import make_app
from glora_search.server.settings import ServerSettings
from glora_search.study.objectives import BY_LOSS, Objectives

TOKEN = "all-0123456789abcdef"
READ_TOKEN = "read-0123456789abcdef"
OWN = "http://127.0.0.1:8484"


def settings(folder: Path, **changes: Any) -> ServerSettings:
    """Settings of a server whose files are in `folder`."""
    given = {"storage": storage(folder), "root": (folder / "runs").resolve(), "poll_s": 0.05}
    (folder / "runs").mkdir(exist_ok=True)
    return ServerSettings(**{**given, **changes})


def storage(folder: Path) -> str:
    """The URL of the database in a folder; it has Optuna's tables, and no studies at first."""
    file = folder / "studies.db"
    if not file.exists():
        file.write_bytes(_empty_database())
    return f"sqlite:///{file}"


@cache
def _empty_database() -> bytes:
    """Making the tables takes half a second, which each test would pay."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "empty.db")
        Database(f"sqlite:///{file}").close()
        return file.read_bytes()


def record(
    database: Database,
    name: str,
    n: int = 10,
    *,
    salt: int = 0,
    objectives: Objectives = BY_LOSS,
) -> StudyRecord:
    """A study with `n` outcomes of generation 0; number 6 failed."""
    attributes = {
        "status": "searching",
        "study": {
            "study": {"name": name},
            "search": {"population": 10, "generations": 4},
            "cluster": {"workers": 3},
        },
    }
    study = database.create_study(name, space=SPACE, objectives=objectives, attributes=attributes)
    with study.hold():
        study.flush([outcome(0, index, salt=salt) for index in range(n)])
    return study


def hold_until_interrupted(url: str, name: str) -> None:
    """Drive a study as a launch does, in a process of its own."""
    with Database(url) as opened, opened.open_study(name).hold():
        wait_until_interrupted()


def wait_until_interrupted() -> None:
    """Stand for a search; tell of the signal that ends it."""
    try:
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        sys.stdout.write("interrupted\n")
        sys.stdout.flush()


def begun_by(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that a server begins from now on. None runs: this process stands for them."""
    began: list[tuple[str, ...]] = []

    def begin(self: ProcessRunner, folder: Path, *words: str, **_: object) -> int:
        began.append(words)
        return os.getpid()  # a process that lives

    monkeypatch.setattr(ProcessRunner, "_begin", begin)
    return began


def exported(folder: Path, study: StudyRecord) -> dict[str, bytes]:
    """An export of a study below the server's root: the bytes of its files."""
    files = {"model.safetensors": bytes(range(256)) * 40, "subnet.json": b"{}"}
    directory = folder / "runs" / study.name / "export"
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    study.set_attribute("export", {"directory": str(directory), "trial": 3})
    return files


@contextmanager
def served(folder: Path, **changes: Any) -> Iterator[str]:
    """A server on a real port."""
    with serving(make_app(settings(folder, **changes))) as url:
        yield url


def keys_of(mistakes: Sequence[dict[str, Any]]) -> set[str]:
    """Where mistakes are."""
    return {mistake["key"] for mistake in mistakes}


def document(answer: Any) -> Any:
    """The JSON of an answer."""
    return json.loads(answer.content)
