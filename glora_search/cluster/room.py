"""How many workers a cluster has room for: at all, and just now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ray  # by way of `cluster.connection`, which makes its settings before

_ROUNDING = 1e-6  # amounts of Ray are sums of decimal fractions


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker takes, all of it on one node, and a fraction of a GPU on one GPU.

    Args:
        cpus: Logical CPUs.
        gpus: GPUs.
    """

    cpus: int
    gpus: float

    def times(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many workers fit into nodes, each given by amounts of `CPU` and `GPU`."""
        return sum(self._times(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)

    def _times(self, cpus: float, gpus: float) -> int:
        by_cpu = _whole(cpus / self.cpus)
        if not self.gpus:
            return by_cpu
        if self.gpus >= 1:
            return min(by_cpu, _whole(gpus / self.gpus))
        full = _whole(gpus)
        return min(by_cpu, full * _whole(1 / self.gpus) + _whole((gpus - full) / self.gpus))


def all_nodes() -> list[dict[str, float]]:
    """What each node offers, in use or not."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def free_nodes() -> list[dict[str, float]]:
    """What is free on each node; a moment old."""
    if ray.util.client.ray.is_connected():  # its server knows no such question
        lookout = _lookout(ray.get_runtime_context().get_job_id())
        free: list[dict[str, float]] = ray.get(lookout.free_nodes.remote())
        return free
    return _free_nodes()


def _free_nodes() -> list[dict[str, float]]:
    from ray._private import state  # the public function tells their sum, which fits into no node

    per_node: dict[str, Any] = state.available_resources_per_node()
    return [dict(node) for node in per_node.values()]


class _Lookout:
    """Asks for a client. A task for each question would often be a process for each: Ray ends idle
    ones after a second, and on a head without CPUs keeps none.
    """

    def free_nodes(self) -> list[dict[str, float]]:
        return _free_nodes()


@lru_cache(maxsize=1)
def _lookout(job: str) -> Any:
    """The actor of a job; it ends with it, and starts again elsewhere where its node is lost."""
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    actor: Any = ray.remote(_Lookout).options(**options)
    return actor.remote()


def _whole(amount: float) -> int:
    return max(0, int(amount + _ROUNDING))
