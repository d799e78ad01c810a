"""Databases that go away: a server that stops or restarts, a file that another process locks."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing

from fork_server import wait_until
from laboratory import Laboratory, NotHereError, Sections, Verdict
from own_postgres import missing, own_postgres
from process_faults import driver_killed
from program import Program


def _need_server() -> None:
    if reason := missing():
        raise NotHereError(reason)


def _far(program: Program, n: int) -> bool:
    return len(program.recorded()) >= n


def postgres_stopped(lab: Laboratory) -> Verdict:
    """The server is stopped in the middle of a search, and comes back."""
    _need_server()
    away_s = 30.0 if lab.full else 3.0
    expected, since = lab.undisturbed(lab.sections), time.monotonic()
    with own_postgres() as server:
        program = lab.program("stopped", lab.sections, storage=server.url, fault={"sleep_s": 0.02})
        with program.watched() as reported:
            running = program.launch()
            wait_until(lambda: _far(program, lab.n_subnets // 4), running)
            reported.update(program.recorded())
            server.stop("immediate")
            time.sleep(away_s)
            under_way = not running.is_over
            server.start()
            running.succeed()
            told = [line for line in running.errors.splitlines() if "answers again" in line]
        return lab.judge(
            program,
            expected,
            reported,
            injected=1,
            survived=int(under_way and bool(told)),
            since=since,
            told=" ".join(told),
        )


def postgres_restarted(lab: Laboratory) -> Verdict:
    """The server restarts between two flushes, time and again."""
    _need_server()
    times = 5 if lab.full else 1
    sections: Sections = {
        **lab.sections,
        "search": {**lab.sections["search"], "flush_every": 20, "flush_s": 9.0},
    }
    expected, since, injected = lab.undisturbed(sections), time.monotonic(), 0
    with own_postgres() as server:
        program = lab.program("restarted", sections, storage=server.url, fault={"sleep_s": 0.05})
        with program.watched() as reported:
            running = program.launch()
            for k in range(times):
                if not wait_until(lambda: _far(program, 1 + 20 * k), running):  # noqa: B023
                    break
                server.stop()
                server.start()
                injected += 1
            running.succeed()
        return lab.judge(
            program, expected, reported, injected=injected, survived=injected, since=since
        )


def driver_killed_postgres(lab: Laboratory) -> Verdict:
    """SIGKILL of the driver at random moments, its study on a server."""
    _need_server()
    with own_postgres() as server:
        return driver_killed(lab, server.url)


def sqlite_locked(lab: Laboratory) -> Verdict:
    """Another process keeps the file locked for a while."""
    locked_s = 90.0 if lab.full else 2.0  # a connection by itself waits for a minute
    expected, since = lab.undisturbed(lab.sections), time.monotonic()
    program = lab.program("locked", lab.sections, fault={"sleep_s": 0.02})
    file = program.storage.removeprefix("sqlite:///")
    with program.watched() as reported:
        running = program.launch()
        wait_until(lambda: _far(program, lab.n_subnets // 4), running)
        reported.update(program.recorded())
        with closing(sqlite3.connect(file, timeout=60, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            unlock = threading.Timer(locked_s, other.rollback)
            unlock.start()
            unlock.join()
            under_way = not running.is_over
        running.succeed()
    return lab.judge(program, expected, reported, injected=1, survived=int(under_way), since=since)
