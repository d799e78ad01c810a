"""A database that is away for a while is waited for; whatever does not pass is told at once.

The servers are real, and stop; their connections break; another process locks the file.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_postgres import OwnPostgres, missing, own_postgres
from recording_cases import SPACE, batch

from glora_search.recording import Database, StudyRecord
from glora_search.recording.batch_writer import BatchWriter
from glora_search.recording.connection import Connection
from glora_search.recording.patience import Patience, PatientStore
from glora_search.recording.shielding import shielded
from glora_search.recording.store import FREE
from glora_search.study.errors import StorageError, StorageUnavailableError, StudyHeldError
from glora_search.study.objectives import BY_LOSS

_AWAY_S = 1.5


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    if reason := missing():
        pytest.skip(reason)
    with own_postgres() as running:
        yield running


@pytest.fixture
def record(server: OwnPostgres, request: pytest.FixtureRequest) -> Iterator[StudyRecord]:
    with Database(server.url) as database:
        yield study(database, request.node.name)


def study(database: Database, name: str) -> StudyRecord:
    name = "".join(c if c.isalnum() else "-" for c in name)
    return database.create_study(name, space=SPACE, objectives=BY_LOSS, attributes={})


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "glora_search")
    return caplog


def later(work: Callable[[], None]) -> threading.Thread:
    """Do `work` when the database has been away for a while."""
    thread = threading.Timer(_AWAY_S, work)
    thread.start()
    return thread


# --- a server that stops ---


@pytest.mark.postgres
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_stops_is_waited_for(
    server: OwnPostgres,
    record: StudyRecord,
    mode: str,
    warnings: pytest.LogCaptureFixture,
) -> None:
    """In order or by a crash: reading and writing go on, and the lease that ran out is kept."""
    with record.hold(0.6) as lease:
        record.flush(batch(0, 3))
        server.stop(mode)  # type: ignore[arg-type]
        back = later(server.start)
        assert record.flush(batch(1, 3)) == 3
        back.join()
        assert record.history() == batch(0, 3) + batch(1, 3)
        record.set_attribute("status", "searching")
        assert not lease.lost
        until = time.monotonic() + 60
        while record.holder is None and time.monotonic() < until:
            time.sleep(0.05)  # it may have run out just now, and is renewed by a thread
        assert record.holder is not None
    told = [r.getMessage() for r in warnings.records if r.name.endswith("patience")]
    assert [("trying again for up to 300 s" in t, "answers again" in t) for t in told] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.postgres
def test_a_server_that_restarts_between_two_flushes_is_not_noticed(
    server: OwnPostgres, record: StudyRecord, warnings: pytest.LogCaptureFixture
) -> None:
    with record.hold():
        record.flush(batch(0, 3))
        server.stop()
        server.start()
        assert record.flush(batch(0, 3) + batch(1, 3)) == 3
    assert record.history() == batch(0, 3) + batch(1, 3)
    assert "trying again" not in warnings.text


@pytest.mark.postgres
def test_a_lease_that_another_process_took_meanwhile_is_not_taken_back(
    server: OwnPostgres, record: StudyRecord
) -> None:
    """A database that was away is no licence to write into a study that has gone on."""
    with record.hold(0.3):
        server.stop()
        server.start()
        with Database(server.url) as other:
            store = other.open_study(record.name)._store
            while not store.swap_lease(store.read_lease()[0], FREE):  # it may be renewed meanwhile
                pass
        with pytest.raises(StudyHeldError, match="no longer holds"):
            record.flush(batch(0, 1))
    assert record.history() == []


@pytest.mark.postgres
def test_patience_has_an_end(server: OwnPostgres, record: StudyRecord) -> None:
    """And it is one for all: the second write does not wait as long again."""
    with record.hold(patience_s=1.0):
        server.stop()
        since = time.monotonic()
        with pytest.raises(StorageUnavailableError):
            record.flush(batch(0, 1))
        assert time.monotonic() - since >= 1.0
        since = time.monotonic()
        with pytest.raises(StorageUnavailableError):
            record.set_attribute("status", "searching")
        assert time.monotonic() - since < 1.0
        server.start()
        assert record.flush(batch(0, 1)) == 1  # and is there anew after a success


@pytest.mark.postgres
def test_an_impatient_person_is_heard(server: OwnPostgres, record: StudyRecord) -> None:
    """Ctrl-C ends the search, which tries to save what has arrived; the next one ends that."""

    def interrupt() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.7)
        os.kill(os.getpid(), signal.SIGINT)

    person = threading.Thread(target=interrupt)
    since = time.monotonic()
    with record.hold():
        server.stop()
        try:
            person.start()
            with (  # noqa: PT012
                pytest.raises((KeyboardInterrupt, StorageUnavailableError)),
                BatchWriter(record.flush, flush_every=1, flush_s=9.0) as writer,
            ):
                for outcome in batch(0, 2):
                    writer.add(outcome)
        finally:
            person.join()
            server.start()
    assert time.monotonic() - since < 60
    assert record.history() == []


# --- an answer that is lost ---


class Proxy:
    """Between a client and the server; the answer to the next COMMIT can be lost."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.lose_next_commit = False
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server_port))
        answers = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        answers.start()
        while data := _received(client):
            if self.lose_next_commit and b"COMMIT\0" in data:  # not READ COMMITTED
                self.lose_next_commit = False
                client.shutdown(socket.SHUT_RDWR)  # nothing more reaches it
                server.sendall(data)
                answers.join(10)
                self.lost += 1
                break
            server.sendall(data)
        server.close()
        client.close()

    def _pump(self, server: socket.socket, client: socket.socket) -> None:
        while data := _received(server):
            try:
                client.sendall(data)
            except OSError:  # it was committed by now
                return


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


@pytest.mark.postgres
def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    server: OwnPostgres, record: StudyRecord
) -> None:
    """The database has the batch, the search does not know: it offers it again."""
    proxy = Proxy(server.port)
    url = server.url.replace(str(server.port), str(proxy.port))
    with Database(url) as database:
        mine = database.open_study(record.name)
        with mine.hold():
            mine.flush(batch(0, 2))
            proxy.lose_next_commit = True
            assert mine.flush(batch(1, 3)) == 0  # none was new: it had been committed
            assert proxy.lost == 1
            mine.flush(batch(2, 2))
            text, _ = mine._store.read_lease()
            patient = PatientStore(record._store, Patience())
            proxy.lose_next_commit = True
            assert PatientStore(mine._store._store, Patience()).swap_lease(text, FREE)
            assert proxy.lost == 2
            assert not patient.swap_lease(text, FREE)
    assert record.history() == batch(0, 2) + batch(1, 3) + batch(2, 2)
    proxy.close()


# --- SQLite ---

_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_file_that_another_process_locks_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for longer than a connection waits by itself."""
    monkeypatch.setattr("glora_search.recording.connection._BUSY_TIMEOUT_S", 0.1)
    file = tmp_path / "studies.db"
    with Database(f"sqlite:///{file}") as database:
        record = study(database, "s")
        with record.hold():
            record.flush(batch(0, 2))
            locker = subprocess.Popen(
                [sys.executable, "-c", _LOCK, str(file), str(_AWAY_S)], stdout=subprocess.PIPE
            )
            assert locker.stdout is not None
            assert locker.stdout.readline() == b"locked\n"
            assert record.flush(batch(1, 2)) == 2
            assert locker.wait() == 0
        assert record.history() == batch(0, 2) + batch(1, 2)


# --- what does not pass ---


def raised(url: str, statement: str) -> StorageError:
    connection = Connection(url, create=True)
    try:
        with pytest.raises(StorageError) as caught, connection.writing() as c:
            c.exec_driver_sql(statement)
        return caught.value
    finally:
        connection.close()


def test_a_missing_table_is_told_at_once(database_url: str) -> None:
    assert not isinstance(raised(database_url, "DELETE FROM nowhere"), StorageUnavailableError)


def test_a_full_disk_is_told_at_once(tmp_path: Path) -> None:
    """As SQLite tells of one; `max_page_count` is its own way to have one."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    Database(url).close()
    connection = Connection(url, create=True)
    with pytest.raises(StorageError, match="full") as caught, connection.writing() as c:  # noqa: PT012
        pages = c.exec_driver_sql("PRAGMA page_count").scalar()
        c.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        c.exec_driver_sql("CREATE TABLE much AS SELECT zeroblob(1000000) AS x")
    assert not isinstance(caught.value, StorageUnavailableError)
    connection.close()


@pytest.mark.postgres
def test_a_server_that_refuses_for_good_is_told_at_once(server: OwnPostgres) -> None:
    """It says so in words alone, while connecting: no user of that name, no such database."""
    for url in (server.url.replace("postgres@", "nobody@"), server.url + "x"):
        with pytest.raises(StorageError, match="does not exist") as caught:
            Database.open(url, False)
        assert not isinstance(caught.value, StorageUnavailableError)


def test_what_is_raised_at_once_is_tried_once() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise StorageError("for good")

    with pytest.raises(StorageError, match="for good"):
        Patience().attempt(fail)
    assert calls == [1]


def test_a_signal_that_is_held_back_ends_the_waiting() -> None:
    """Else Ctrl-C would be answered in five minutes."""
    calls = []

    def fail() -> None:
        calls.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        raise StorageUnavailableError("away")

    with pytest.raises(KeyboardInterrupt) as caught, shielded():
        Patience().attempt(fail)
    assert isinstance(caught.value.__context__, StorageUnavailableError)
    assert calls == [1]
