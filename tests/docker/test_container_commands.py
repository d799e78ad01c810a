"""The commands of the compose file and the manifests, each run by the program that it names.

What a container would give them is put in place here: ports that are free, folders that exist.
Everything else is word for word what the files say.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
import sqlalchemy as sa
from deployment import compose, free_port, manifest, pod_templates, words_of

from glora_search.cli.commands import cli
from glora_search.recording import Database
from glora_search.study.errors import StorageError
from glora_search.study.objectives import BY_LOSS
from search_spaces import LayerSpec, SearchSpace

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
BIN = Path(sys.executable).parent


def command_of(service: str, **replaced: object) -> list[str]:
    """A service's command, with one value each for some of its options."""
    words = words_of(SERVICES[service]["command"])
    for option, value in replaced.items():
        name = f"--{option.replace('_', '-')}"
        places = [i for i, word in enumerate(words) if word.partition("=")[0] == name]
        words[places[0]] = f"{name}={value}"
        words = [word for i, word in enumerate(words) if i not in places[1:]]
    return [str(BIN / words[0]), *words[1:]]


def _bare() -> dict[str, str]:
    """What programs and packages are found by, and nothing else of this process's environment."""
    found = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    return found | {k: v for k, v in os.environ.items() if k == "PYTHONPATH"}


def answer(url: str, token: str | None = None) -> tuple[int, str]:
    """Status and text that a GET of `url` answers; status 0 where nobody listens."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as a:
            return a.status, a.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def wait_until(met: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a condition while `process` runs; fails with its log when it ends, or after long."""
    until = time.monotonic() + 60
    while not met():
        told = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        assert process.poll() is None, told
        assert time.monotonic() < until, told
        time.sleep(0.2)


@contextmanager
def running(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with nothing in its environment but what is given, ended with all its children."""
    bare = {**_bare(), "HOME": str(log.parent)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=bare | environment, stdout=out, stderr=out, cwd=log.parent
        )
    try:
        yield process
    finally:
        family = [psutil.Process(process.pid)] if process.poll() is None else []
        family += [child for parent in family for child in parent.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for left in alive:
            left.kill()
        process.wait()


# --- what is parsed ---


def ray_start(words: list[str]) -> dict[str, Any]:
    """The options of a `ray start`, as Ray itself reads them."""
    from ray.scripts.scripts import start

    context = start.make_context("start", list(words))
    return context.params


@pytest.mark.slow
@pytest.mark.parametrize("service", ["head", "worker"])
def test_ray_knows_every_option(service: str) -> None:
    program, verb, *words = words_of(SERVICES[service]["command"])
    assert (program, verb) == ("ray", "start")
    options = ray_start(words)
    assert options["block"] is True, "the container would end at once"
    assert options["head"] == (service == "head")
    assert options["object_store_memory"] == 10**9


def test_ray_knows_every_parameter_of_the_manifests() -> None:
    """KubeRay makes a flag of each."""
    cluster = manifest("raycluster.yaml")["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        ray_start([f"--{name}={value}" for name, value in group["rayStartParams"].items()])


@pytest.mark.parametrize(
    "command",
    [
        words_of(SERVICES["search"]["command"]),
        shlex.split(manifest("rayjob.yaml")["spec"]["entrypoint"]),
        words_of(dict(pod_templates())["server"]["spec"]["containers"][0]["command"]),
    ],
    ids=["search", "rayjob", "server"],
)
def test_glora_search_knows_every_option(command: list[str]) -> None:
    program, verb, *words = command
    assert program == "glora-search"
    with click.Context(cli) as parent:
        cli.commands[verb].make_context(verb, words, parent=parent)


def test_the_databases_health_check_is_a_command() -> None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_isready"))
    if not found:
        pytest.skip("PostgreSQL's programs are not installed")
    kind, program, *words = SERVICES["database"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "pg_isready")
    ran = subprocess.run([found[-1], *words, f"--port={free_port()}"], capture_output=True)
    assert ran.returncode == 2, "2: nobody answers; 3: it did not understand"


# --- what is run: the database and the dashboard ---


def check_health(service: str, port: int) -> bool:
    """The service's health check, at another port; read here where wget is missing."""
    kind, program, *words = SERVICES[service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "wget")
    *options, url = words
    host, _, path = url.removeprefix("http://").partition("/")
    assert host.startswith("127.0.0.1:")
    here = f"http://127.0.0.1:{port}/{path}"
    if wget := shutil.which("wget"):
        return subprocess.run([wget, *options, here], capture_output=True).returncode == 0
    return answer(here)[0] == 200


def make_tables(server: Any) -> None:
    """The command of the service `tables`."""
    words = command_of("tables")
    environment = {"GLORA_SEARCH_STORAGE": server.storage()} | server.environment("database_search")
    ran = subprocess.run(words, env=_bare() | environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.postgres
def test_the_dashboard_reads_and_cannot_delete(server: Any, tmp_path: Path) -> None:
    """It has no log-in of its own, so its role is what stands between a visitor and the studies."""
    make_tables(server)
    engine = sa.create_engine(
        server.storage().replace("://", "+psycopg://"),
        connect_args={"password": server.password("database_search")},
        poolclass=sa.NullPool,
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO studies (study_name) VALUES ('kept')")
    port = free_port()
    *words, storage = command_of("dashboard", host="127.0.0.1", port=port)
    assert storage == "postgresql+psycopg://glora_reader@database/glora_search"
    storage = server.storage("glora_reader").replace("://", "+psycopg://")
    log = tmp_path / "log"
    environment = server.environment("database_reader")
    with running([*words, storage], environment, log) as process:
        wait_until(lambda: check_health("dashboard", port), process, log)
        status, text = answer(f"http://127.0.0.1:{port}/api/studies")
        assert status == 200
        (study,) = json.loads(text)["study_summaries"]
        assert study["study_name"] == "kept"
        delete = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/studies/{study['study_id']}", method="DELETE"
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(delete, timeout=10)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM studies").scalar() == 1
    assert server.password("database_reader") not in log.read_text(encoding="utf-8")


@pytest.mark.postgres
def test_the_server_asks_for_its_token(server: Any, tmp_path: Path) -> None:
    """With a database that holds no study, and before its Ray cluster answers."""
    make_tables(server)
    port = free_port()
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4, encoding="ascii")
    token.chmod(0o600)
    command = command_of(
        "server",
        host="127.0.0.1",
        port=port,
        root=tmp_path / "runs",
        data_root=tmp_path,
        address=f"http://127.0.0.1:{free_port()}",
    )
    environment = {
        **server.environment("database_search"),
        "GLORA_SEARCH_STORAGE": server.storage(),
        "GLORA_SEARCH_SERVER_TOKEN_FILE": str(token),
    }
    log = tmp_path / "log"
    with running(command, environment, log) as process:
        wait_until(lambda: check_health("server", port), process, log)
        url = f"http://127.0.0.1:{port}/api/v1/studies"
        assert answer(url)[0] == 401
        status, text = answer(url, token.read_text(encoding="ascii"))
        assert (status, json.loads(text)["studies"]) == (200, [])
    assert server.password("database_search") not in log.read_text(encoding="utf-8")


@pytest.mark.postgres
def test_no_password_no_entry(server: Any) -> None:
    """The server does not let in whoever comes over the network, as the tests' own one may."""
    url = server.storage().replace("://", "+psycopg://")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with pytest.raises(sa.exc.OperationalError, match="password"):
        engine.connect()
    log = (server.secrets.parent / "postgres" / "log").read_text(encoding="utf-8")
    for secret in ("database_search", "database_reader"):
        assert server.password(secret) not in log
        assert "CREATE ROLE" not in log


@pytest.mark.postgres
@pytest.mark.parametrize("way", ["service file", "password file"])
def test_the_database_opens_without_a_password_in_its_url(
    server: Any, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tables(server)
    if way == "service file":
        for name, value in server.environment("database_search").items():
            monkeypatch.setenv(name, value)
    else:
        file = tmp_path / "pgpass"
        password = server.password("database_search")
        file.write_text(f"127.0.0.1:{server.port}:*:glora_search:{password}\n", encoding="utf-8")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))
    with Database.open(server.storage(), create=True) as database:
        assert database.list_studies() == []


@pytest.mark.postgres
def test_who_may_only_read_sees_the_studies(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `status` and `report`; making anything is refused in one line."""
    make_tables(server)
    for name, value in server.environment("database_reader").items():
        monkeypatch.setenv(name, value)
    with Database.open(server.storage("glora_reader"), create=False) as database:
        assert database.list_studies() == []
        space = SearchSpace([LayerSpec("a", 4, 4, True)], {s: ["none"] for s in "ABCDE"})
        with pytest.raises(StorageError, match="permission denied"):
            database.create_study("new", space=space, objectives=BY_LOSS, attributes={})


# --- what is run: Ray ---


@dataclass(frozen=True)
class Cluster:
    """A head and a worker, started as the compose file does.

    Args:
        gcs: The head's port for nodes and drivers.
        dashboard: That of the dashboard and of jobs.
        client: That of Ray clients.
        environment: What a container of the cluster has in its environment.
    """

    gcs: int
    dashboard: int
    client: int
    environment: dict[str, str]

    @property
    def token(self) -> str:
        return Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8").strip()

    def drive(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a Python script with this environment in place of the cluster's."""
        bare = {**_bare(), "HOME": "/nonexistent"}
        return subprocess.run(
            [sys.executable, "-c", script],
            env=bare | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def cluster(secrets: Path) -> Iterator[Cluster]:
    environment = {
        key: str(value).replace("/run/secrets/ray_token", str(secrets / "ray_token.txt"))
        for key, value in SERVICES["worker"]["environment"].items()
    }
    assert set(environment) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"}
    gcs, dashboard, client, agent, other = (free_port() for _ in range(5))
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        here = ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
        head = command_of(
            "head",
            port=gcs,
            dashboard_host="127.0.0.1",
            dashboard_port=dashboard,
            ray_client_server_port=client,
            object_store_memory=10**8,
        )
        worker = command_of("worker", address=f"127.0.0.1:{gcs}", object_store_memory=10**8)
        logs = [Path(folder) / "head.log", Path(folder) / "worker.log"]
        with running(
            [*head, *here, f"--dashboard-agent-listen-port={agent}"], environment, logs[0]
        ) as first:
            wait_until(lambda: check_health("head", dashboard), first, logs[0])
            with running(
                [*worker, here[0], f"--dashboard-agent-listen-port={other}"], environment, logs[1]
            ) as second:
                wait_until(lambda: check_health("worker", other), second, logs[1])
                yield Cluster(gcs, dashboard, client, environment)


_COUNT = """
import ray
ray.init(address="127.0.0.1:{port}", logging_level="ERROR")
print(len(ray.nodes()), ray.cluster_resources().get("CPU"))
"""


@pytest.mark.slow
def test_a_worker_joins_with_the_token(cluster: Cluster) -> None:
    """And the head has no CPU of its own to offer: drivers run there."""
    found = cluster.drive(_COUNT.format(port=cluster.gcs), **cluster.environment)
    assert found.stdout.split() == ["2", "2.0"], found.stderr


@pytest.mark.slow
def test_the_dashboard_of_ray_wants_the_token(cluster: Cluster) -> None:
    """Whoever submits a job runs code on the cluster."""
    jobs = f"http://127.0.0.1:{cluster.dashboard}/api/jobs/"
    assert answer(jobs)[0] == 401
    assert answer(jobs, token="0" * 64)[0] == 403
    assert answer(jobs, token=cluster.token)[0] == 200


_PEEK = """
from ray._raylet import GcsClient
print("inside", len(GcsClient(address="127.0.0.1:{port}").internal_kv_keys(b"", namespace=None)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_no_driver_gets_in_without_the_token(cluster: Cluster, mode: str, tmp_path: Path) -> None:
    """By the call that a driver's `ray.init` makes first; that would try again for 20 seconds."""
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64, encoding="utf-8")
    ran = cluster.drive(
        _PEEK.format(port=cluster.gcs), RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN_PATH=str(wrong)
    )
    assert ran.returncode != 0
    assert "InvalidAuthToken" in ran.stderr
    assert "inside" not in ran.stdout
    assert cluster.token not in ran.stdout + ran.stderr


@pytest.mark.slow
def test_no_client_gets_in_without_the_token(cluster: Cluster) -> None:
    """The port for `ray://` addresses, asked for the least that it tells."""
    import grpc
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    request = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
    with grpc.insecure_channel(f"127.0.0.1:{cluster.client}") as channel:
        ask = ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo
        for metadata in ((), (("authorization", "Bearer " + "0" * 64),)):
            with pytest.raises(grpc.RpcError) as caught:
                ask(request, timeout=20, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
