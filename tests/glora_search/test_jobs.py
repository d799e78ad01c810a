"""Studies as Ray jobs, on a real head that asks for a token, with a real server as their database.

Every command is a process of its own, as it is for whoever types it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from own_ray import Head, free_ports, own_head
from tiny_study import found, study, write_study

from glora_search.client import Client, ServerUnavailableError
from glora_search.cluster.jobs import checked_address
from glora_search.cluster.reaching import check_reachable
from glora_search.operations.launching import launch
from glora_search.recording import Database
from glora_search.study.errors import ClusterError, StudyNotFoundError

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

_SIZE = {"population": 50, "generations": 15, "mutations": 25, "crossovers": 25, "parents": 10}
_PATIENCE_S = 300


@dataclass(frozen=True)
class Site:
    """A cluster and a database.

    Args:
        head: The cluster.
        storage: URL of the database.
        database: It, open.
        environment: What lets a command in.
    """

    head: Head
    storage: str
    database: Database
    environment: dict[str, str]

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "glora_search", *map(str, words)]

    def on_cluster(self, *words: str | Path) -> list[str]:
        return self.command(*words, "--address", self.head.dashboard)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.on_cluster(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )

    def status(self, job: str) -> str:
        return str(json.loads(self.run("status", job, "--json").stdout)["status"])


@pytest.fixture(scope="module")
def site(postgres_server: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name = f"glora_search_jobs_{os.getpid()}"
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = postgres_server.set(drivername="postgresql", database=name)
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("0123456789abcdef" * 4)
    secrets = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    if url.password:
        secrets["PGPASSWORD"] = str(url.password)
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "GLORA_SEARCH_ST"))}
    ours["RAY_AUTH_TOKEN_PATH"] = str(token)
    storage = url.set(password=None).render_as_string()
    with (
        own_head({**secrets, "GLORA_SEARCH_STORAGE": storage}) as head,
        Database.open(storage, create=True) as database,
    ):
        yield Site(head, storage, database, ours)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def server_of(site: Site, folder: Path) -> Iterator[Client]:
    """A server whose studies are jobs of the site's cluster."""
    (port,) = free_ports(1)
    words = ["--port", str(port), "--root", folder / "root", "--storage", site.storage]
    process = subprocess.Popen(site.on_cluster("serve", *words), env=site.environment)
    try:
        with Client(f"http://127.0.0.1:{port}") as client:

            def answers() -> bool:
                try:
                    list(client.studies())
                except ServerUnavailableError:
                    return False
                return True

            wait_for(answers)
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE_S)


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if value := what():
            return value
        time.sleep(0.2)
    raise TimeoutError(f"{what} did not come true in {_PATIENCE_S} s")


def recorded(site: Site) -> int:
    """How many subnets of the study "far" are."""
    try:
        return site.database.open_study("far").tally().n_complete
    except StudyNotFoundError:
        return 0


def kept(site: Site) -> list[tuple[Any, ...]]:
    """What was found in the study "far"."""
    return found(site.database.open_study("far").history())


def test_a_study_outlives_its_terminal_its_job_and_its_cluster(site: Site, tmp_path: Path) -> None:
    """Launched from a terminal that is closed while it shows the log; stopped; resumed by another
    job, which is lost with the head and all that it started (SIGKILL); resumed through a server as
    a job of a new cluster: what is found is what an undisturbed run finds.
    """
    path = write_study(tmp_path, study={"name": "far"}, search=_SIZE, cluster={"workers": 1})
    variables = {
        k: site.environment[k]
        for k in ("RAY_AUTH_TOKEN_PATH", "PGPASSWORD")
        if k in site.environment
    }
    with own_head(
        {**variables, "RAY_AUTH_MODE": "token", "GLORA_SEARCH_STORAGE": site.storage}
    ) as lost:
        doomed = replace(site, head=lost)
        n_stopped = stopped_in_the_middle(doomed, path)
        words = ("far", "--storage", site.storage, "--set", "cluster.workers=0")
        resumed = doomed.run("resume", *words)
        assert resumed.returncode == 0, resumed.stderr
        wait_for(lambda: recorded(site) > n_stopped)
        lost.kill()
    n_recorded = recorded(site)
    assert n_stopped < n_recorded < 800, "it was not killed in the middle: this proves little"
    before = set(kept(site))

    with server_of(site, tmp_path) as server:
        server.resume("far")
        server.stop("far")  # its job hardly runs
        assert not server.status("far")["running"]
        server.resume("far", overrides=["cluster.workers=0"])
        told = server.wait("far")
        assert "searching" in server.logs("far")
    assert (told["status"], told["evaluated"]) == ("complete", 800)
    wait_for(lambda: site.status("far") == "SUCCEEDED")  # by the study's name, the latest job
    assert before <= set(kept(site))

    (tmp_path / "alone").mkdir()
    alone = launch(study(tmp_path / "alone", search=_SIZE), storage=f"sqlite:///{tmp_path}/a.db")
    assert kept(site) == found(alone.outcomes)


def stopped_in_the_middle(site: Site, path: Path) -> int:
    """Launch the study "far", close the terminals that show its log, and stop it; returns how many
    subnets are recorded.
    """
    launched = subprocess.Popen(
        site.on_cluster("launch", path, "--storage", "cluster"),
        env=site.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert launched.stdout is not None
    job = launched.stdout.readline().strip()
    assert job.startswith("far-")
    with suppress(ProcessLookupError):
        os.killpg(launched.pid, signal.SIGHUP)
    launched.wait()
    log = subprocess.Popen(
        site.on_cluster("logs", job, "--follow"),
        env=site.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert log.stdout is not None
    assert any("loading torch" in line for line in log.stdout), "the log ended before the job"
    os.killpg(log.pid, signal.SIGKILL)
    log.wait()
    wait_for(lambda: recorded(site))
    stopped = site.run("stop", job, "--json")
    assert json.loads(stopped.stdout)["status"] == "STOPPED", stopped.stderr
    n_recorded = recorded(site)
    assert 0 < n_recorded < 800, "it was not stopped in the middle: this proves little"
    written = site.run("logs", job).stdout
    assert f"interrupted; {n_recorded} subnets are recorded" in written, "not a clean interruption"
    assert site.database.open_study("far").holder is None
    return n_recorded


def test_a_cluster_that_does_not_know_us(site: Site) -> None:
    """Told at once, and what to do."""
    environment = {**site.environment, "RAY_AUTH_TOKEN": "f" * 64}
    del environment["RAY_AUTH_TOKEN_PATH"]
    ended = subprocess.run(
        site.on_cluster("status"), env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "does not let us in" in ended.stderr
    assert "RAY_AUTH_TOKEN_PATH" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", ["gcs", "client"])
def test_a_driver_that_shows_no_token(
    site: Site, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray would try again for 20 or 30 s, and then speak of a network that is out of reach."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"does not let us in, a token is needed"):
        check_reachable(getattr(site.head, kind))


def test_a_job_that_is_not_there(site: Site) -> None:
    ended = site.run("stop", "nonesuch")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no job 'nonesuch' at http://")


@pytest.mark.parametrize(
    "address", ["http://", "http://me:secret@head:8265", "http://head:8265/jobs", "http://a:b:c"]
)
def test_no_address_of_a_dashboard(address: str) -> None:
    with pytest.raises(ClusterError, match="expected http://HOST:8265") as caught:
        checked_address(address)
    assert "secret" not in str(caught.value)
