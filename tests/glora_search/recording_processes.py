"""Other processes for the tests of `glora_search.recording`: they hold, flush, and are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import sqlalchemy as sa
from fork_server import PROCESSES
from recording_cases import batch

from glora_search.recording import Database
from glora_search.study.errors import StudyHeldError
from search_spaces import SearchSpace

PATIENCE_S = 300.0


class Child:
    """A running process, and this end of a pipe to it."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self.pipe, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=target, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def hear(self) -> Any:
        """The next message; EOFError where the process ended without one."""
        if not self.pipe.poll(PATIENCE_S):
            raise TimeoutError("the other process says nothing")
        return self.pipe.recv()

    def tell(self, message: Any) -> None:
        self.pipe.send(message)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.process.kill()
        self.process.join()


@contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """Run `target(pipe, *arguments)` in another process for the time of the block."""
    started = Child(target, *arguments)
    try:
        yield started
    finally:
        started.kill()


def hold(pipe: Connection, url: str, name: str, ttl_s: float) -> None:
    """Hold the study; whenever told a list of outcomes, flush it and say what came of it."""
    with Database(url) as database:
        record = database.open_study(name)
        try:
            with record.hold(ttl_s) as lease:
                pipe.send(str(lease.holder))
                while (outcomes := pipe.recv()) is not None:
                    try:
                        pipe.send(record.flush(outcomes))
                    except StudyHeldError as error:
                        pipe.send(error)
        except StudyHeldError as error:
            pipe.send(error)
    pipe.send("released")


def open_database(pipe: Connection, url: str) -> None:
    """Open the database at the moment that a message comes in."""
    pipe.send("ready")
    pipe.recv()
    with Database(url) as database:
        pipe.send(len(database.list_studies()))


def flush_for_ever(pipe: Connection, url: str, name: str, size: int) -> None:
    """Flush generation after generation from the first missing one, saying so before and after."""
    with Database(url) as database:
        record = database.open_study(name)
        with record.hold():
            generation = record.tally().n_complete + record.tally().n_failed
            generation //= size
            while True:
                outcomes = batch(generation, size, space=record.space)
                pipe.send(("begins", generation))
                record.flush(outcomes)
                pipe.send(("ended", generation))
                generation += 1


def die_in_flush(
    pipe: Connection, url: str, name: str, space: SearchSpace, size: int, statements: int
) -> None:
    """Flush generation 0; be killed in generation 1, when so many statements are done."""
    with Database(url) as database:
        record = database.open_study(name)
        with record.hold():
            record.flush(batch(0, size, space=space))
            left = statements

            def die(*_: Any) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            sa.event.listen(sa.Engine, "after_cursor_execute", die)
            pipe.send("begins")
            record.flush(batch(1, size, space=space))
            pipe.send("ended")
