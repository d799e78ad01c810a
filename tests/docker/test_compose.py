"""The compose file: who is reachable, who may do what; every name in it stands for something.

Read as a file. What Compose itself would make of it is checked by `docker compose config` where
that is installed; what its commands do, in test_container_commands; all of it together, where a
container engine runs, in test_running_containers.
"""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deployment import DOCKER, ROOT, compose, strings_in

FILE = compose()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


def test_it_has_what_a_cluster_needs() -> None:
    assert set(SERVICES) == {
        "database",
        "tables",
        "head",
        "worker",
        "search",
        "server",
        "dashboard",
    }


def test_ports_are_published_on_the_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") and port.count(":") == 2 for port in published)
    assert {port.rpartition(":")[2] for port in published} == {"8265", "8484", "8080"}
    assert not any(service.get("network_mode") for service in SERVICES.values())


def test_the_database_is_reached_by_those_who_need_it() -> None:
    """Not by workers, and from no other network: theirs have no way out. Who may only read shares
    no network with Ray.
    """
    own = SERVICES["database"]["networks"]
    assert own == ["database", "reader"]
    assert all(FILE["networks"][name] == {"internal": True} for name in own)
    reach = {name for name, service in SERVICES.items() if set(own) & set(service["networks"])}
    assert reach == {"database", "tables", "head", "search", "server", "dashboard"}
    for name in ("head", "worker"):
        assert set(SERVICES["dashboard"]["networks"]).isdisjoint(SERVICES[name]["networks"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] in ("10001:10001", "postgres")
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert not any("docker.sock" in text for text in strings_in(service))


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_no_secret_stands_in_the_file_or_the_environment(name: str) -> None:
    file = compose(name)
    for service in file["services"].values():
        for key, value in service.get("environment", {}).items():
            secret = any(word in key for word in ("PASSWORD", "TOKEN", "SECRET", "KEY"))
            assert not secret or str(value).startswith("/run/secrets/"), key
    for text in strings_in(file):
        credentials = text.partition("://")[2].partition("@")[0] if "@" in text else ""
        assert ":" not in credentials, f"a password in {text!r}"


def test_a_service_is_given_the_secrets_that_it_names_and_no_others() -> None:
    for name, service in SERVICES.items():
        named = {
            text.removeprefix("/run/secrets/")
            for text in strings_in(service.get("environment", {}))
            if text.startswith("/run/secrets/")
        }
        if name == "database":  # roles.sql reads the passwords of the roles that it makes
            roles = (DOCKER / "database" / "roles.sql").read_text(encoding="utf-8")
            named |= {n for n in FILE["secrets"] if f"/run/secrets/{n}`" in roles}
        assert set(service.get("secrets", [])) == named, name
        assert named <= set(FILE["secrets"])
    assert "database_search" not in SERVICES["worker"]["secrets"]
    assert SERVICES["dashboard"]["secrets"] == ["database_reader"]


def test_secrets_are_made_by_the_script_and_ignored_by_git(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = DOCKER / "make-secrets.sh"
    subprocess.run([script, folder], check=True)
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {f"./secrets/{name}" for name in made} == {s["file"] for s in FILE["secrets"].values()}
    assert len(set(made.values())) == len(made)
    assert all(len(text) >= 64 for text in made.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}

    subprocess.run([script, folder], check=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == made, "passwords were changed"

    assert "/secrets/" in (DOCKER / ".gitignore").read_text(encoding="utf-8").splitlines()
    if git := shutil.which("git"):
        tracked = subprocess.run(
            [git, "ls-files", "docker/secrets"], cwd=ROOT, capture_output=True, text=True
        )
        assert tracked.stdout == ""


def test_names_stand_for_something() -> None:
    for service in SERVICES.values():
        assert set(service["networks"]) <= set(FILE["networks"])
        for dependency, condition in service.get("depends_on", {}).items():
            wanted = condition["condition"]
            if wanted == "service_healthy":
                assert "healthcheck" in SERVICES[dependency]
            else:
                assert wanted == "service_completed_successfully"
                assert SERVICES[dependency]["restart"] == "no"
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            is_made = source in FILE["volumes"] or source == "./studies"
            assert is_made or (DOCKER / source).is_file(), volume
        if "build" in service:
            build = service["build"]
            assert (DOCKER / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file()
    assert set(compose("compose.gpu.yaml")["services"]) <= set(SERVICES)


def test_ray_fits_into_the_shared_memory() -> None:
    for name in ("head", "worker"):
        (store,) = (w for w in SERVICES[name]["command"] if w.startswith("--object-store-memory="))
        assert SERVICES[name]["shm_size"] == "2gb"
        assert int(store.partition("=")[2]) < 2 * 2**30


def test_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("docker compose is not installed")
    for names in (["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]):
        files = [word for name in names for word in ("--file", str(DOCKER / name))]
        subprocess.run([docker, "compose", *files, "config", "--quiet"], check=True)
