"""The connection to Ray: one of this process's own, or a cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from glora_search.cluster.driver_name import plain_driver_name
from glora_search.cluster.reaching import check_reachable, set_auth_mode
from glora_search.study.errors import ClusterError, one_line

if TYPE_CHECKING:
    from glora_search.study.place_sections import ClusterSection

# Read by ray at its import: no usage report, and an actor without GPU leaves CUDA alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from glora_search.cluster.room import Share, all_nodes

# `ray` with the settings above.
__all__ = ["WorkerPool", "await_head", "connect", "disconnect", "last_words", "ray"]

_log = logging.getLogger(__name__)
_GIVEN_AUTH_MODE: Final = os.environ.get("RAY_AUTH_MODE")
_LOOK_AGAIN_S: Final = 1.0
_CLIENT_TRIES: Final = 5
_NO_CLIENT_SERVER: Final = (
    "Initialization failure from server",
    "Attempted to reconnect a session",
)
"""Ray's messages if the server process of a client started too slowly or ended early; the second
one comes if it ended while the client was connecting. On a busy head up to one in ten ends early:
it is forked beside threads of gRPC, whose handlers of a fork then raise SIGSEGV (Ray 2.60)."""

_HEAD_PATIENCE_S: Final = 30.0  # a head that restarts is back by then; half of Ray's own


@dataclass(frozen=True, kw_only=True)
class WorkerPool:
    """How many workers a search asks for, and what each takes.

    Args:
        workers: Actors, at least 1.
        elastic: Whether there are as many as the cluster has room for at any time; it must have
            room for `workers` at the start.
        cpus: Logical CPUs for each.
        gpus: GPUs for each; fractions share one.
        max_tries: How often a candidate may end its worker before it is given up.
        candidate_timeout_s: How long a worker may take for a candidate before it is replaced; None
            for ever.
        wait_s: How long to wait for a cluster that is too small to grow.
        start_timeout_s: How long to wait for the first worker to come up.
        keys: Of the study file: where `workers`, `cpus` and `gpus` are from.
    """

    workers: int
    elastic: bool = False
    cpus: int = 1
    gpus: float = 0.0
    max_tries: int = 3
    candidate_timeout_s: float | None = None
    wait_s: float = 0.0
    start_timeout_s: float = 300.0
    keys: tuple[str, str, str] = (
        "cluster.workers",
        "cluster.cpus_per_worker",
        "cluster.gpus_per_worker",
    )

    @classmethod
    def of(cls, section: ClusterSection) -> Self:
        """What the section [cluster] asks for; it has workers."""
        return cls(
            workers=1 if section.workers == "auto" else section.workers,
            elastic=section.workers == "auto",
            cpus=section.cpus_per_worker,
            gpus=section.gpus_per_worker,
            max_tries=section.max_tries,
            candidate_timeout_s=section.candidate_timeout_s,
            wait_s=section.wait_s,
        )

    @property
    def share(self) -> Share:
        """What one of them takes."""
        return Share(cpus=self.cpus, gpus=self.gpus)


def connect(
    address: str | None, pool: WorkerPool, on_wait: Callable[[int], None] = lambda room: None
) -> None:
    """Join the Ray at `address`, or start one for `pool` on this machine where it is None.

    Args:
        address: Of Ray.
        pool: What is needed.
        on_wait: Told how many workers a cluster that is waited for has room for, as that changes.

    Raises:
        ClusterError: There is no Ray at `address`, or it has not what the workers need.
    """
    if not ray.is_initialized():
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "namespace": "glora-search",
        }
        if address is None:
            # "local": without it Ray would join whatever instance happens to run on this machine
            options |= {"address": "local", "include_dashboard": False}
            if not pool.elastic:
                options |= {"num_cpus": pool.workers * pool.cpus}
        else:
            check_reachable(address)
            options["address"] = address
        try:
            with _own_sigterm_handler(), plain_driver_name():
                _init(options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "on this machine" if address is None else f"at {address!r}"
            reason = one_line(error, limit=300)
            raise ClusterError(f"no Ray {where}: {reason}") from error
    _await_room(pool, on_wait)


def disconnect() -> None:
    """Leave Ray, and end it if this process started it.

    Ray switches this process to tokens where it starts a cluster, and does not switch it back. The
    next cluster may know no tokens, and its workers would die while they start (Ray 2.60).
    """
    ray.shutdown()
    set_auth_mode(_GIVEN_AUTH_MODE)


def _init(options: dict[str, Any]) -> None:
    """Call `ray.init`, and again if it failed because the server process of this client did not
    come up. Ray waits a fixed time for that process, and raises several errors if it ends early.
    """
    for tries_left in reversed(range(_CLIENT_TRIES)):
        try:
            ray.init(**options)
            return
        except ConnectionError as error:
            if not tries_left or not any(words in str(error) for words in _NO_CLIENT_SERVER):
                raise
            _log.warning(
                "the server that the head starts for this client did not come up (%s); "
                "trying again, %d of %d",
                one_line(error, limit=200, end=True),
                _CLIENT_TRIES - tries_left + 1,
                _CLIENT_TRIES,
            )


def _await_room(pool: WorkerPool, on_wait: Callable[[int], None]) -> None:
    """Return once the cluster is large enough; what is in use by others counts as there."""
    until = time.monotonic() + pool.wait_s
    asked, told = False, -1
    while (room := pool.share.times(all_nodes())) < pool.workers:
        if time.monotonic() >= until:
            raise _too_small(pool, room)
        if not asked:
            _ask_autoscaler([{"CPU": pool.cpus, "GPU": pool.gpus}] * pool.workers)
            asked = True
        if room != told:
            on_wait(room)
            told = room
        time.sleep(_LOOK_AGAIN_S)
    if asked:
        _ask_autoscaler([])  # the workers themselves keep the nodes from now on


def await_head() -> None:
    """Return if the cluster's head answers, or does so again before long.

    Call this when a worker is gone or silent, before any other call to Ray. Without a head, Ray
    blocks for a minute and then ends this process.

    Raises:
        ClusterError: The head is gone.
    """
    if ray.util.client.ray.is_connected():
        return  # the server of this client is at the head, and Ray tells that it is gone
    address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    until = time.monotonic() + _HEAD_PATIENCE_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_AGAIN_S).close()
            return
        except OSError as error:
            if time.monotonic() >= until:
                raise ClusterError(
                    f"the head of the Ray cluster, {address}, has not answered for "
                    f"{_HEAD_PATIENCE_S:g} s ({error.strerror or error}); what had arrived is "
                    "recorded, and `resume` goes on with another cluster"
                ) from error
        time.sleep(_LOOK_AGAIN_S)


def last_words(error: Exception) -> str:
    """What ended a worker, in one line; Ray's own text is a page."""
    return one_line(getattr(error, "cause", None) or error, limit=300, end=True)


def _ask_autoscaler(bundles: list[dict[str, float]]) -> None:
    """Tell an autoscaler, where there is one, what is needed."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{k: v for k, v in b.items() if v} for b in bundles])


def _too_small(pool: WorkerPool, room: int) -> ClusterError:
    total = ray.cluster_resources()
    needed = {"CPU": pool.workers * pool.cpus, "GPU": pool.workers * pool.gpus}
    has = " and ".join(f"{total.get(name, 0):g} {name}" for name in needed)
    count = f"{pool.workers} workers need" if pool.workers > 1 else "1 worker needs"
    waited = f" after {pool.wait_s:g} s" if pool.wait_s else ""
    workers, cpus, gpus = pool.keys
    return ClusterError(
        f"{count} {needed['CPU']:g} CPU and {needed['GPU']:g} GPU; the cluster has {has}{waited}, "
        f"room for {room}. Lower {workers}, {cpus} or {gpus}, or wait for an autoscaler with "
        "cluster.wait_s"
    )


@contextlib.contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep this process's SIGTERM handler, which Ray replaces by its own. With the handler of this
    process a SIGTERM ends it in an orderly way.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
