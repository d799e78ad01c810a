"""A cluster of several nodes that come and go, on this machine.

A node takes longer to start than to do what these tests ask of it, so most of them go on with those
that the tests before them have left.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from killing import kill_all, killing_a_worker
from own_ray import FEWER_PROCESSES, free_ports, without_ray
from ray.cluster_utils import Cluster
from stand_in_scorers import StandIn, candidates, loss_of

from glora_search.cluster.room import Share, all_nodes
from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool
from glora_search.study.errors import ClusterError
from glora_search.study.outcomes import Outcome

pytestmark = pytest.mark.slow

CANDIDATES = candidates(60)
SMALL = {"object_store_memory": 80_000_000}
SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300}  # that a node is gone


@pytest.mark.parametrize(
    ("share", "nodes", "n"),
    [
        (Share(cpus=2, gpus=0), [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        (Share(cpus=1, gpus=0), [{"CPU": 0.0}, {"memory": 1.0}], 0),
        (Share(cpus=1, gpus=0.3), [{"CPU": 16.0, "GPU": 1.0}], 3),
        (Share(cpus=1, gpus=0.4), [{"CPU": 16.0, "GPU": 2.0}], 4),
        (Share(cpus=1, gpus=0.1), [{"CPU": 16.0, "GPU": 0.7}], 7),
        (Share(cpus=4, gpus=0.5), [{"CPU": 16.0, "GPU": 4.0}], 4),
        (Share(cpus=1, gpus=2), [{"CPU": 16.0, "GPU": 3.0}, {"CPU": 4.0, "GPU": 2.0}], 2),
        (Share(cpus=1, gpus=1), [{"CPU": 16.0}, {"CPU": 1.0, "GPU": 1.0}], 1),
    ],
)
def test_room(share: Share, nodes: list[dict[str, float]], n: int) -> None:
    """A worker stands on one node, and its fraction is one of one GPU: sums say too much."""
    assert share.times(nodes) == n


@pytest.fixture(scope="module")
def client_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def cluster(client_port: int) -> Iterator[Cluster]:
    """A head that evaluates nothing; nodes are added by the tests.

    It waits for 15 s, not 30, for the server that it starts for a client. With gRPC's handlers of a
    fork, the first process of that server sometimes ends with SIGSEGV (Ray 2.60).
    """
    head = {
        "num_cpus": 0,
        "ray_client_server_port": client_port,
        **FEWER_PROCESSES,
        "_system_config": SOON,
        **SMALL,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "15")
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
        cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def nodes_of(cluster: Cluster, n: int) -> list[Any]:
    """The nodes, of one CPU each: those that are there, and as many more as `n` needs."""
    nodes = list(cluster.worker_nodes)
    assert len(nodes) <= n
    return nodes + [cluster.add_node(num_cpus=1, **SMALL) for _ in range(n - len(nodes))]


def settle(cluster: Cluster) -> None:
    """Wait until the cluster has noticed which nodes are gone; while it is joined."""
    n, until = len(cluster.worker_nodes), time.monotonic() + 60
    while Share(cpus=1, gpus=0).times(all_nodes()) > n and time.monotonic() < until:
        time.sleep(0.1)


def check(outcomes: list[Outcome]) -> None:
    assert sorted(o.candidate.index for o in outcomes) == list(range(len(CANDIDATES)))
    assert all(o.loss == loss_of(o.candidate.subnet) for o in outcomes)


def test_a_cluster_that_is_too_small_is_told_or_waited_for(cluster: Cluster) -> None:
    """At once, with what there is; or for as long as one likes."""
    with pytest.raises(
        ClusterError, match=r"2 workers need 2 CPU.*has 0 CPU and 0 GPU, room for 0"
    ):
        RayWorkers(cluster.address, WorkerPool(workers=2))
    told: list[int] = []

    def arrive(room: int) -> None:
        told.append(room)
        cluster.add_node(num_cpus=1, **SMALL)

    workers = RayWorkers(cluster.address, WorkerPool(workers=2, wait_s=60), arrive)
    try:
        assert told[:2] == [0, 1]
        assert Share(cpus=1, gpus=0).times(all_nodes()) >= 2
        check(list(workers.evaluator(StandIn()).evaluate(CANDIDATES)))
    finally:
        workers.close()


def test_a_worker_that_hangs_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    """Stopped, not dead: one that hangs once costs nothing but time; a candidate that hangs every
    time is given up, and its neighbours are not.
    """
    _, node = nodes_of(cluster, 2)
    pool = WorkerPool(workers=2, max_tries=2, candidate_timeout_s=1.0)
    workers = RayWorkers(cluster.address, pool)
    try:
        outcomes: list[Outcome] = []
        for outcome in workers.evaluator(StandIn(eval_s=0.06)).evaluate(CANDIDATES):
            outcomes.append(outcome)
            if len(outcomes) == 5:
                os.kill(int(outcome.worker.split(":")[1]), signal.SIGSTOP)
        check(outcomes)

        slow = CANDIDATES[17]
        evaluator = workers.evaluator(StandIn(hanging=frozenset({slow.subnet.digest})))
        outcomes = list(evaluator.evaluate(CANDIDATES))
        (failed,) = [o for o in outcomes if o.failed]
        assert failed.candidate == slow
        assert (failed.error_type, failed.error) == (
            "TimeoutError",
            "no result in 1 s, the last of 2 tries",
        )
        assert len(outcomes) == len(CANDIDATES)
        cluster.remove_node(node, allow_graceful=False)
        settle(cluster)
    finally:
        workers.close()


def test_workers_follow_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """A node that joins in mid-search gets work, one that leaves takes nothing with it."""
    gate = tmp_path / "gate"
    (first,) = nodes_of(cluster, 1)
    workers = RayWorkers(cluster.address, WorkerPool(workers=1, elastic=True))
    try:
        evaluator = workers.evaluator(StandIn(eval_s=0.06, gate=gate))
        outcomes: list[Outcome] = []
        for outcome in evaluator.evaluate(CANDIDATES):
            outcomes.append(outcome)
            if len(outcomes) == 4:
                cluster.add_node(num_cpus=1, **SMALL)
            if first is not None and len({o.worker for o in outcomes}) == 2:
                cluster.remove_node(first, allow_graceful=False)
                first = None
                gate.touch()
        check(outcomes)
        assert len({o.worker for o in outcomes}) == 2, "nobody came: this proves nothing"
        assert first is None
        settle(cluster)
    finally:
        workers.close()


_THROUGH_THE_CLIENT = """
import sys

sys.path[:0] = sys.argv[2:]
import os, signal
from stand_in_scorers import StandIn, candidates, loss_of
from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool
from glora_search.cluster.connection import ray

workers = RayWorkers(sys.argv[1], WorkerPool(workers=1, elastic=True, max_tries=2))
assert ray.util.client.ray.is_connected()
some = candidates(60)
deadly = some[7]
evaluator = workers.evaluator(StandIn(eval_s=0.03, deadly=frozenset({deadly.subnet.digest})))
outcomes = []
for outcome in evaluator.evaluate(some):
    outcomes.append(outcome)
    if len(outcomes) == 5:
        os.kill(int(outcome.worker.split(":")[1]), signal.SIGKILL)
assert sorted(o.candidate.index for o in outcomes) == list(range(60))
assert [o.candidate for o in outcomes if o.failed] == [deadly]
assert all(o.failed or o.loss == loss_of(o.candidate.subnet) for o in outcomes)
next(iter(evaluator.evaluate(some[8:])))
assert len(list(evaluator.evaluate(some[8:20]))) == 12
workers.close()
"""


def test_through_rays_client(cluster: Cluster, client_port: int) -> None:
    """Which has no streams: the same outcomes, also where workers die and callers stop early, and
    where the first server that the head starts for this client is killed as it starts.
    """
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    nodes_of(cluster, 1)
    with killing_a_worker("--mode=specific-server") as killed:
        done = subprocess.run(
            [sys.executable, "-c", _THROUGH_THE_CLIENT, f"ray://127.0.0.1:{client_port}", *folders],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            # Ray keeps the place of a client that is lost for so long, also of one that never was.
            env={**os.environ, "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2"},
        )
    assert done.returncode == 0, done.stderr
    assert killed, "no server was killed: this proves nothing of the second try"
    assert "did not come up" in done.stderr
    assert "trying again, 2 of 5" in done.stderr


_WITHOUT_A_HEAD = """
import sys

sys.path[:0] = sys.argv[2:]
from stand_in_scorers import StandIn, candidates
from glora_search.study.errors import ClusterError
from glora_search.cluster import connection
from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool

connection._HEAD_PATIENCE_S = 1.0
workers = RayWorkers(sys.argv[1], WorkerPool(workers=1))
try:
    for outcome in workers.evaluator(StandIn(eval_s=0.2)).evaluate(candidates(60)):
        print(outcome.candidate.index, flush=True)
except ClusterError as error:
    print(error, flush=True)
workers.close()
"""


def test_a_head_that_is_gone(cluster: Cluster) -> None:
    """Told before Ray would end the process, without a word, after a minute. The last test here:
    it ends the cluster, whose start costs as much as all that it does.
    """
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    nodes_of(cluster, 1)
    words = [sys.executable, "-c", _WITHOUT_A_HEAD, cluster.address, *folders]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=without_ray())
    assert driver.stdout is not None
    assert driver.stdout.readline().strip().isdigit(), "no outcome came"
    started = [
        started.process.pid
        for node in cluster.list_all_nodes()
        for group in node.all_processes.values()
        for started in group
    ]
    kill_all([psutil.Process(pid) for pid in started])
    *_, told = driver.stdout
    assert driver.wait() == 0
    assert re.search(r"the head of the Ray cluster, \S+, has not answered for 1 s", told)
