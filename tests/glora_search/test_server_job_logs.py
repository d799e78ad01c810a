"""The log of a study that runs as a job: shown like one of this machine, and read for all at once.

The cluster is a stand-in for `job_log`; test_jobs.py has a real one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from server_cases import OWN, record, settings, storage

from glora_search.operations import jobs
from glora_search.operations.running import LOG
from glora_search.recording import Database
from glora_search.server import job_logs
from glora_search.server.app import make_app
from glora_search.study.errors import ClusterError

STUDY = "/api/v1/studies/a"
PATIENCE_S = 60.0


class Cluster:
    """Logs of jobs, and what was asked for; it answers when it may."""

    def __init__(self) -> None:
        self.log: str | None = None
        self.away = False
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def job_log(self, name: str, address: str) -> str | None:
        self.asked.append(name)
        assert self.may_answer.wait(PATIENCE_S)
        if self.away:
            raise ClusterError("nothing answers")
        return self.log


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(jobs, "job_log", found.job_log)
    return found


@pytest.fixture
def client(tmp_path: Path, cluster: Cluster) -> Iterator[TestClient]:
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    given = settings(tmp_path, address="http://127.0.0.1:1", job_storage="cluster")
    with TestClient(make_app(given), base_url=OWN) as opened:
        yield opened


def progress(client: TestClient, line: str) -> None:
    """Ask until a line is the progress of study a."""
    until = time.monotonic() + PATIENCE_S
    while client.get(STUDY).json()["progress"] != line:
        assert time.monotonic() < until, client.get(STUDY).json()
        time.sleep(0.01)


def test_nobody_waits_for_the_cluster_and_many_are_one_read(
    client: TestClient, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A status is answered while the cluster takes its time; later ones, and the page, have it."""
    monkeypatch.setattr(job_logs, "_FRESH_S", 3600.0)
    cluster.log = "supernet: epoch 3\n{\n}\n"
    cluster.may_answer.clear()
    assert [client.get(STUDY).json()["progress"] for _ in range(20)] == [None] * 20
    cluster.may_answer.set()
    progress(client, "supernet: epoch 3")
    assert "supernet: epoch 3" in client.get("/studies/a").text
    assert cluster.asked == ["a"]


def test_a_log_that_grows_is_read_again(
    client: TestClient, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody asks. What was read last stays while the cluster is away; a log of this
    machine is shown where there is no job.
    """
    monkeypatch.setattr(job_logs, "_FRESH_S", 0.0)
    cluster.log = "x" * 10_000 + "\nepoch 1\n"
    progress(client, "epoch 1")
    cluster.log += "epoch 2\n"
    progress(client, "epoch 2")
    cluster.away = True
    before = len(cluster.asked)
    while len(cluster.asked) < before + 3:
        assert client.get(STUDY).json()["progress"] == "epoch 2"
    cluster.away, cluster.log = False, None
    root = client.app.state.settings.root  # type: ignore[attr-defined]
    (root / "a").mkdir()
    (root / "a" / LOG).write_text("by hand\n")
    progress(client, "by hand")


def test_only_studies_that_somebody_looks_at_are_asked_for(
    client: TestClient, cluster: Cluster
) -> None:
    """Neither names that no study has, nor every study of the list."""
    cluster.log = "error: no data\n"
    assert client.get("/api/v1/studies/b").status_code == 404
    assert client.get("/studies/b").status_code == 404
    assert "badge state-stopped" in client.get("/").text
    assert not cluster.asked
    progress(client, "error: no data")
    assert "badge state-failed" in client.get("/").text
