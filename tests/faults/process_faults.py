"""Processes that are killed: the driver, workers, nodes, the head; and candidates that kill."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from fork_server import Running, wait_until
from laboratory import Laboratory, Sections, Verdict
from program import Program

_SLOW = {"sleep_s": 0.02}


def driver_killed(lab: Laboratory, storage: str | None = None) -> Verdict:
    """SIGKILL at random moments in one study, resumed each time."""
    kills, longest_s = (20, 2.5) if lab.full else (2, 1.0)
    sections: Sections = {
        "supernet": {"epochs": 60 if lab.full else 20},
        "search": {**lab.sections["search"], "generations": 120 if lab.full else 20},
    }
    expected = lab.undisturbed(sections)
    rng, since, injected = lab.random("driver"), time.monotonic(), 0
    program = lab.program("driver", sections, storage=storage, fault=_SLOW)
    with program.watched() as reported:
        running = program.launch()
        for _ in range(kills):
            holds = wait_until(lambda: program.holder() == running.pid, running)  # noqa: B023
            if not holds:
                break
            time.sleep(rng.uniform(0.0, longest_s))
            if running.is_over:
                break
            running.kill()
            injected += 1
            reported.update(program.recorded())
            running = program.resume()
        running.succeed()
    return lab.judge(program, expected, reported, injected=injected, survived=injected, since=since)


def worker_killed(lab: Laboratory) -> Verdict:
    """SIGKILL of a Ray worker while it evaluates."""
    kills = 5 if lab.full else 1
    expected, since, injected = lab.undisturbed(lab.sections), time.monotonic(), 0
    program = lab.program(
        "worker", {**lab.sections, "cluster": {"workers": 2}}, fault={"sleep_s": 0.1}
    )
    rng = lab.random("worker")
    with program.watched() as reported:
        running = program.launch()
        for _ in range(kills):
            victim = _evaluating(running)
            if victim is None:
                break
            time.sleep(rng.uniform(0.0, 0.3))
            if not _runs(victim, "Worker.evaluate"):
                victim = _evaluating(running)
            if victim is None:
                break
            victim.kill()
            injected += 1
        running.succeed()
    return lab.judge(program, expected, reported, injected=injected, survived=injected, since=since)


def _evaluating(running: Running) -> psutil.Process | None:
    """A worker of the run that evaluates; None where the run is over before there is one."""
    found: list[psutil.Process] = []

    def look() -> bool:
        try:
            children = psutil.Process(running.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return False
        found.extend(child for child in children if _runs(child, "Worker.evaluate"))
        return bool(found)

    return found[0] if wait_until(look, running) else None


def _runs(process: psutil.Process, what: str) -> bool:
    """Whether a process is an actor that just now runs that, as its title tells."""
    try:
        return any(what in word for word in process.cmdline())
    except psutil.Error:
        return False


def worker_hangs(lab: Laboratory) -> Verdict:
    """A Ray worker is stopped, not dead: a time limit replaces it."""
    expected, since, injected = lab.undisturbed(lab.sections), time.monotonic(), 0
    cluster = {"workers": 2, "candidate_timeout_s": 3.0}
    program = lab.program("hangs", {**lab.sections, "cluster": cluster}, fault={"sleep_s": 0.1})
    with program.watched() as reported:
        running = program.launch()
        victim = _evaluating(running)
        if victim is not None:
            victim.suspend()
            injected = 1
        running.succeed()
    return lab.judge(program, expected, reported, injected=injected, survived=injected, since=since)


def training_worker_killed(lab: Laboratory) -> Verdict:
    """SIGKILL of one of two workers that train the supernet, once there is a checkpoint."""
    sections: Sections = {
        **lab.sections,
        "supernet": {"epochs": 40, "workers": 2, "checkpoint_every_s": 0.0},
    }
    expected, since, injected = lab.undisturbed(sections), time.monotonic(), 0
    program = lab.program("training-worker", sections)
    checkpoints = program.folder / "runs" / "supernets"
    with program.watched() as reported:
        running = program.launch()
        if wait_until(lambda: any(checkpoints.glob("*.training.safetensors")), running):
            for child in psutil.Process(running.pid).children(recursive=True):
                if _runs(child, "RayTrainWorker"):
                    child.kill()
                    injected = 1
                    break
        running.succeed()
    return lab.judge(program, expected, reported, injected=injected, survived=injected, since=since)


@contextmanager
def _cluster(head_cpus: int, nodes: int) -> Iterator[Any]:
    """A Ray cluster of several nodes on this machine; none of it is this process's own.

    With Ray's own settings: a driver that has lost the head looks for it for a minute.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": head_cpus, "include_dashboard": False},
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def _on(cluster: Any) -> Sections:
    return {"cluster": {"address": cluster.address, "workers": 2}}


def _begun(program: Program) -> bool:
    return len(program.recorded()) > 10


def node_killed(lab: Laboratory) -> Verdict:
    """SIGKILL of everything on a node with a worker; later another node joins."""
    expected, since = lab.undisturbed(lab.sections), time.monotonic()
    injected = 0
    with _cluster(0, 2) as cluster:
        program = lab.program("node", {**lab.sections, **_on(cluster)}, fault={"sleep_s": 0.05})
        with program.watched() as reported:
            running = program.launch()
            if wait_until(lambda: _begun(program), running):
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                injected = 1
                if lab.full:
                    time.sleep(2.0)
                    cluster.add_node(num_cpus=1)
            running.succeed()
    return lab.judge(program, expected, reported, injected=injected, survived=injected, since=since)


def head_killed(lab: Laboratory) -> Verdict:
    """SIGKILL of the head, with everything on it; then `resume` on a new cluster."""
    expected, since = lab.undisturbed(lab.sections), time.monotonic()
    injected = 0
    with _cluster(2, 0) as cluster:
        program = lab.program("head", {**lab.sections, **_on(cluster)}, fault={"sleep_s": 0.05})
        with program.watched() as reported:
            running = program.launch()
            if wait_until(lambda: _begun(program), running):
                cluster.remove_node(cluster.head_node, allow_graceful=False)
                injected = 1
            told = running.fail("has not answered for")
    with program.watched() as again:
        if lab.full:
            with _cluster(2, 0) as cluster:
                program.resume("--address", cluster.address).succeed()
        else:
            program.resume("--set", "cluster.workers=0").succeed()
    return lab.judge(
        program,
        expected,
        reported | again,
        injected=injected,
        survived=injected,
        since=since,
        told=told,
    )


def deadly_candidates(lab: Laboratory) -> Verdict:
    """Some candidates end every worker that evaluates them: given up, and the search goes on."""
    one_in = 32 if lab.full else 64
    return _faulty(lab, "deadly", one_in, {"workers": 2, "max_tries": 2}, "WorkerDiedError")


def nan_candidates(lab: Laboratory) -> Verdict:
    """Some candidates give logits that are no numbers."""
    return _faulty(lab, "nan", 16, {"workers": 0}, "NonFiniteLossError")


def _faulty(
    lab: Laboratory, kind: str, one_in: int, cluster: dict[str, Any], error_type: str
) -> Verdict:
    """Against a run in which the same candidates raise an ordinary error."""
    sections: Sections = {
        **lab.sections,
        "search": {**lab.sections["search"], "max_failures": 1000},
    }
    expected = lab.undisturbed(sections, {"kind": "raises", "one_in": one_in})
    since = time.monotonic()
    fault = {"kind": kind, "one_in": one_in}
    program = lab.program(kind, {**sections, "cluster": cluster}, fault=fault)
    with program.watched() as reported:
        program.launch().succeed()
    failed = sum(outcome[4] is None for outcome in expected[0])
    blamed = program.error_types().count(error_type)
    return lab.judge(program, expected, reported, injected=failed, survived=blamed, since=since)


def too_many_deadly_candidates(lab: Laboratory) -> Verdict:
    """As many of them as `max_failures` says end the search, which says so; all are recorded.

    Resumed with none of them deadly any more, it goes on; those that failed stay failed, so the
    winner is compared with a run that failed there as well.
    """
    borne = 10 if lab.full else 2
    sections: Sections = {
        **lab.sections,
        "search": {**lab.sections["search"], "max_failures": borne},
    }
    since = time.monotonic()
    one_in = 6
    program = lab.program(
        "too-many",
        {**sections, "cluster": {"workers": 2, "max_tries": 2}},
        fault={"kind": "deadly", "one_in": one_in},
    )
    with program.watched() as reported:
        told = program.launch().fail(f"search.max_failures is {borne}")
    kinds = program.error_types()
    n_failed = sum(kind is not None for kind in kinds)
    more = lab.undisturbed(
        {**sections, "search": {**sections["search"], "max_failures": 1000}},
        {"kind": "raises", "one_in": one_in},
    )
    go_on = program.with_fault({"kind": "raises", "one_in": one_in})
    with go_on.watched() as again:
        go_on.resume("--set", "search.max_failures=1000").succeed()
    return lab.judge(
        go_on,
        more,
        reported | again,
        injected=n_failed,
        survived=kinds.count("WorkerDiedError"),
        since=since,
        told=told,
    )
