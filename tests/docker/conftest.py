"""A PostgreSQL server of these tests' own, set up by docker/database/roles.sql."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployment import DOCKER, free_port

_SYSTEM = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Server:
    """A server that asks for passwords.

    Args:
        port: On the loopback.
        secrets: The folder that make-secrets.sh filled.
    """

    port: int
    secrets: Path

    def storage(self, role: str = "glora_search") -> str:
        """The URL of the studies' database, without a password."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/glora_search"

    def environment(self, secret: str) -> dict[str, str]:
        """What a service with that secret has in its environment."""
        return {"PGSERVICEFILE": str(self.secrets / f"{secret}.conf"), "PGSERVICE": "glora"}

    def password(self, secret: str) -> str:
        """What a service file holds."""
        text = (self.secrets / f"{secret}.conf").read_text(encoding="utf-8")
        return text.partition("password=")[2].strip()


@pytest.fixture(scope="session")
def secrets() -> Iterator[Path]:
    """What make-secrets.sh makes. Where nobody's temporary folder is in the way of other users."""
    with tempfile.TemporaryDirectory(prefix="glora-docker-") as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "secrets"
        subprocess.run([DOCKER / "make-secrets.sh", made], check=True)
        made.chmod(0o755)  # a container mounts the files, not the folder
        yield made


@pytest.fixture(scope="session")
def server(secrets: Path) -> Iterator[Server]:
    """The database of the compose file, as the image of PostgreSQL would set it up."""
    programs = _programs()
    as_postgres = _user()
    folder = secrets.parent / "postgres"
    folder.mkdir()
    if as_postgres:
        shutil.chown(folder, as_postgres, as_postgres)
    port = free_port()

    def run(program: str, *words: str | Path) -> None:
        subprocess.run(
            [programs / program, *words],
            check=True,
            capture_output=True,
            user=as_postgres,
            group=as_postgres,
            extra_groups=[] if as_postgres else None,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )

    data, sockets = folder / "data", folder
    admin = secrets / "database_admin.txt"
    run(
        "initdb",
        "--no-sync",
        "--username=postgres",
        f"--pwfile={admin}",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
        "--pgdata",
        data,
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {sockets}"
    run(
        "pg_ctl", "start", "--wait", "--pgdata", data, "--options", options, "--log", folder / "log"
    )
    try:
        roles = folder / "roles.sql"
        text = (DOCKER / "database" / "roles.sql").read_text(encoding="utf-8")
        for name in ("database_search", "database_reader"):
            text = text.replace(f"/run/secrets/{name}", str(secrets / f"{name}.conf"))
        roles.write_text(text, encoding="utf-8")
        # The words of the image's own script.
        run(
            "psql",
            "-v",
            "ON_ERROR_STOP=1",
            "--no-password",
            "--no-psqlrc",
            "--username=postgres",
            f"--host={sockets}",
            f"--port={port}",
            "--file",
            roles,
        )
        yield Server(port, secrets)
    finally:
        run("pg_ctl", "stop", "--mode=immediate", "--pgdata", data)


def _programs() -> Path:
    found = sorted(_SYSTEM.glob("*/bin/initdb"))
    if not found:
        pytest.skip(f"no PostgreSQL server is installed below {_SYSTEM}")
    return found[-1].parent


def _user() -> str | None:
    """The user as whom the server runs: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
