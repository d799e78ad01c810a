"""The compose file in a container engine: a study as a stranger would launch it, and what is shut.

It takes an image that was built before (docs/containers.md): these tests build none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
from deployment import DOCKER
from tiny_study import write_study

from glora_search.client import Client, ServiceError

pytestmark = [pytest.mark.containers, pytest.mark.slow]

_PORTS = """\
services:
  head: {ports: !override []}
  server: {ports: !override ["127.0.0.1::8484"]}
  dashboard: {ports: !override []}
"""
"""Beside a stack that somebody uses, no port may be fixed."""


@dataclass(frozen=True)
class Stack:
    """A stack that runs.

    Args:
        folder: With a copy of docker/.
        environment: Of Compose.
        name: Of its project.
    """

    folder: Path
    environment: dict[str, str]
    name: str = "glora-search-test"

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with these words."""
        files = ("--file", "docker/compose.yaml", "--file", "ports.yaml")
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, *files, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def inside(self, service: str, program: str) -> str:
        """What a Python program prints in a service's container."""
        return self.compose("exec", "-T", service, "python", "-c", program).stdout.strip()

    def command(self, *words: str) -> str:
        """What glora-search prints beside the cluster."""
        return self.compose("run", "--rm", "-T", "search", "glora-search", *words).stdout

    def url(self) -> str:
        """Where the server is published."""
        return f"http://{self.compose('port', 'server', '8484').stdout.strip()}"

    def token(self) -> str:
        """The server's token."""
        path = self.folder / "docker" / "secrets" / "server_token.txt"
        return path.read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The compose file's services, all of them healthy, with a study and its backbone."""
    environment = {**os.environ, "GLORA_SEARCH_VARIANT": _variant()}
    folder = tmp_path_factory.mktemp("stack")
    shutil.copytree(DOCKER, folder / "docker", ignore=shutil.ignore_patterns("secrets", "studies"))
    (folder / "ports.yaml").write_text(_PORTS, encoding="utf-8")
    subprocess.run([folder / "docker" / "make-secrets.sh"], check=True)
    studies = folder / "docker" / "studies"
    studies.mkdir()
    file = write_study(studies, cluster={"workers": 2})
    text = file.read_text(encoding="utf-8").replace(str(studies / "runs"), "/artifacts/runs")
    file.write_text(text.replace(str(studies), "/studies"), encoding="utf-8")
    for path in (folder, *folder.rglob("*")):  # the containers' user is another
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    running = Stack(folder, environment)
    try:
        running.compose("up", "--detach", "--wait")
        yield running
    finally:
        running.compose("down", "--volumes", "--timeout", "5", check=False)


def _variant() -> str:
    if shutil.which("docker") is None:
        pytest.skip("no docker is installed")
    images = subprocess.run(
        ["docker", "image", "ls", "--format", "json", "glora-search"],
        capture_output=True,
        text=True,
    )
    if images.returncode:
        pytest.skip(f"no container engine answers: {images.stderr.strip()}")
    tags = {json.loads(line)["Tag"] for line in images.stdout.splitlines()}
    for variant in ("cpu", "cuda"):
        if variant in tags:
            return variant
    pytest.skip("the image glora-search:cpu or :cuda is not built")


def test_a_study_launched_beside_the_cluster(stack: Stack) -> None:
    words = ("launch", "/studies/study.toml", "--address", "http://head:8265")
    job = stack.command(*words, "--storage", "cluster").strip()
    logs = stack.command("logs", job, "--address", "http://head:8265", "--follow")
    assert "exported  /artifacts/runs/tiny/export" in logs
    assert "tiny" in stack.command("status")


def test_a_study_of_the_server(stack: Stack, tmp_path: Path) -> None:
    """Submitted, stopped, resumed after the server and a worker were restarted, and fetched."""
    file = stack.folder / "docker" / "studies" / "study.toml"
    served = file.read_text(encoding="utf-8").replace('"tiny"', '"served"')
    with Client(stack.url(), token=stack.token()) as client:
        name = client.create(served.replace("generations = 2", "generations = 40"), start=True)
        for event in client.events(name):
            if event.kind == "state" and event.data["evaluated"]:
                break
        client.stop(name)
        assert 0 < client.wait(name)["evaluated"] < 8 * 41
    stack.compose("restart", "--timeout", "2", "server", "worker")
    stack.compose("up", "--detach", "--wait")
    with Client(stack.url(), token=stack.token()) as client:
        client.resume(name)
        assert client.wait(name)["status"] == "complete"
        archive = tmp_path / "export.zip"
        client.export(name, archive)
    with zipfile.ZipFile(archive) as files:
        files.extractall(tmp_path / "export")
    model = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    assert model.num_classes == 3


def test_the_server_asks_for_its_token(stack: Stack) -> None:
    with Client(stack.url()) as client, pytest.raises(ServiceError, match="token"):
        client.status("tiny")


@pytest.mark.parametrize(
    ("service", "host", "port", "reached"),
    [
        ("head", "database", 5432, True),
        ("worker", "head", 6379, True),
        ("worker", "database", 5432, False),
        ("dashboard", "database", 5432, True),
        ("dashboard", "head", 8265, False),
    ],
)
def test_networks(stack: Stack, service: str, host: str, port: int, reached: bool) -> None:
    program = (
        "import socket\n"
        f"try: socket.create_connection(('{host}', {port}), timeout=5); print(True)\n"
        "except OSError: print(False)"
    )
    assert stack.inside(service, program) == str(reached)


@pytest.mark.parametrize("service", ["head", "worker", "server", "dashboard"])
def test_containers_are_confined(stack: Stack, service: str) -> None:
    program = (
        "import os\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(os.getuid(), int(status['CapEff'], 16), status['NoNewPrivs'].strip())\n"
        "try: open('/file', 'w'); print('written')\n"
        "except OSError as e: print(e.strerror)"
    )
    assert stack.inside(service, program).splitlines() == ["10001 0 1", "Read-only file system"]
