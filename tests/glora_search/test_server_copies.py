"""A server that runs in several copies: they share a database and a root, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fork_server import Running, wait_until
from recording_cases import SPACE
from server_cases import OWN, settings, wait_until_interrupted
from tiny_study import study_table

from glora_search.operations.running import ProcessRunner
from glora_search.recording import Database
from glora_search.server.app import make_app
from glora_search.study.objectives import BY_LOSS

API = "/api/v1"
STUDY = f"{API}/studies/tiny"


def drive_until_interrupted(url: str, name: str) -> None:
    """Launch a study as a process of a server does, as far as its lease."""
    with Database(url) as opened, opened.services()[name].taken_over():
        attributes = {"status": "searching", "study": {"study": {"name": name}}}
        study = opened.create_study(name, space=SPACE, objectives=BY_LOSS, attributes=attributes)
        with study.hold():
            wait_until_interrupted()


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    """A study that strangers may send: nothing in it is a path."""
    found = study_table(tmp_path)
    del found["study"]["directory"]
    del found["backbone"]["checkpoint"]
    return {**found, "backbone": {**found["backbone"], "pretrained": True}}


@pytest.fixture
def processes() -> Iterator[list[Running]]:
    """Those that a test begins; none outlives it."""
    begun: list[Running] = []
    yield begun
    for process in begun:
        process.kill()


@pytest.mark.slow
def test_two_copies_start_a_study_once_and_either_stops_it(
    database_url: str,
    tmp_path: Path,
    table: dict[str, Any],
    processes: list[Running],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are asked while one of them is at it. The other one then stops and deletes it."""
    Database(database_url).close()  # makes the tables
    one_answered = threading.Event()

    def begin(self: ProcessRunner, folder: Path, *words: str) -> int:
        assert one_answered.wait(60), "both copies start the study"
        processes.append(Running(drive_until_interrupted, database_url, "tiny", folder=tmp_path))
        return processes[-1].pid

    def start(copy: TestClient) -> Any:
        answer = copy.post(f"{STUDY}/start")
        one_answered.set()
        return answer

    monkeypatch.setattr(ProcessRunner, "_begin", begin)
    given = settings(tmp_path, storage=database_url)
    with (
        TestClient(make_app(given), base_url=OWN, raise_server_exceptions=False) as one,
        TestClient(make_app(given), base_url=OWN, raise_server_exceptions=False) as other,
        ThreadPoolExecutor(2) as threads,
    ):
        assert one.post(f"{API}/studies", json=table).status_code == 201
        answers = dict(zip((one, other), threads.map(start, (one, other)), strict=True))
        assert sorted(answer.status_code for answer in answers.values()) == [202, 409]
        (began,) = (copy for copy, answer in answers.items() if answer.status_code == 202)
        (second,) = (copy for copy in answers if copy is not began)
        assert answers[second].json()["type"].endswith(":study-held")
        (process,) = processes
        assert wait_until(lambda: second.get(STUDY).json()["status"] == "searching", process)
        for copy in (one, other):
            assert copy.get(STUDY).json()["held_by"].endswith(f":{process.pid}")
            assert copy.post(f"{STUDY}/start").status_code == 409
        confirmed = {"confirm": "tiny"}
        assert second.delete(STUDY, params=confirmed).status_code == 409
        assert second.post(f"{STUDY}/stop").status_code == 202
        process.succeed()
        assert process.output == "interrupted\n"
        assert not began.get(STUDY).json()["running"]
        assert second.delete(STUDY, params=confirmed).status_code == 204
        assert began.get(STUDY).status_code == 404
