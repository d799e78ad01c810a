"""A Ray cluster of a test's own, with a dashboard, as `ray start --head` makes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from killing import kill_all

_PATIENCE_S: Final = 300

FEWER_PROCESSES: Final = {
    "include_dashboard": False,
    "no_monitor": True,
    "include_log_monitor": False,
}
"""Of a node that tests start: nobody looks at its dashboard or reads workers' logs, and nothing
there scales by itself.
"""


@dataclass(frozen=True)
class Head:
    """A cluster of one node.

    Args:
        dashboard: `http://...`.
        gcs: `127.0.0.1:PORT`, for drivers on this machine.
        client: `ray://...`.
        pid: Of `ray start --block`.
    """

    dashboard: str
    gcs: str
    client: str
    pid: int

    def kill(self) -> None:
        """SIGKILL to all that it consists of, jobs and their drivers included."""
        kill_all([psutil.Process(self.pid)])


@contextmanager
def own_head(environment: Mapping[str, str], *, cpus: int = 2) -> Iterator[Head]:
    """Start a head in processes of its own, and end it with all that it started.

    Args:
        environment: For the head and its jobs, besides this process's own.
        cpus: That it offers.
    """
    ports = free_ports(4)
    programs = Path(sys.executable).parent
    variables = {**without_ray(), **environment}
    variables |= {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",  # a job's `python` is this one
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_worker_niceness": "0",
        "GRPC_ENABLE_FORK_SUPPORT": "0",  # else a server for a client may end as it is forked
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        words = ["start", "--head", "--block", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
        words += [f"--port={ports[0]}", "--include-dashboard=true", f"--dashboard-port={ports[1]}"]
        words += [f"--ray-client-server-port={ports[2]}", "--object-store-memory=100000000"]
        words += [f"--dashboard-agent-listen-port={ports[3]}"]
        words += ["--no-monitor", "--include-log-monitor=false"]  # as in FEWER_PROCESSES
        # Any that are free: workers of two heads would take the same ones of Ray's default range.
        words += ["--min-worker-port=0", "--max-worker-port=0"]
        log = Path(folder) / "head.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [programs / "ray", *words],
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            dashboard = f"http://127.0.0.1:{ports[1]}"
            _await(lambda: _answers(f"{dashboard}/api/gcs_healthz"), process, log)
            _await(lambda: _listens(ports[2]), process, log)
            yield Head(
                dashboard, f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[2]}", process.pid
            )
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def without_ray() -> dict[str, str]:
    """This process's environment without the settings that joining a cluster leaves there."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}


def free_ports(n: int) -> list[int]:
    """Ports of the loopback that nobody listens on just now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _await(there: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not there():
        if process.poll() is not None:
            raise RuntimeError(f"ray start ended:\n{log.read_text()[-2000:]}")
        if time.monotonic() > until:
            raise TimeoutError(f"no Ray after {_PATIENCE_S} s:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it asks for a token
    except OSError:
        return False
    return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
