"""One process drives a study: with real processes that live, sleep, race and are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import pytest
import sqlalchemy as sa
from recording_cases import EACH_STORE, SPACE, STORES, batch
from recording_processes import PATIENCE_S, child, hold

from glora_search.recording import Database, Holder, StudyRecord
from glora_search.recording.connection import Connection
from glora_search.recording.store import FREE, LEASE_KEY
from glora_search.study.errors import StorageError, StudyHeldError
from glora_search.study.objectives import BY_LOSS

LONG_S = 3600.0


@pytest.fixture(scope="module", params=EACH_STORE)
def database(request: pytest.FixtureRequest, module_database_url: str) -> Iterator[Database]:
    with Database(module_database_url, known_schemas=STORES[request.param]) as opened:
        yield opened


@pytest.fixture
def record(database: Database) -> StudyRecord:
    return database.create_study(uuid.uuid4().hex, space=SPACE, objectives=BY_LOSS, attributes={})


def lease_text(record: StudyRecord) -> str | None:
    return record._store.read_lease()[0]


def put_lease(record: StudyRecord, text: str) -> None:
    assert record._store.swap_lease(lease_text(record), text)


def holder(record: StudyRecord, *, ttl_s: float) -> Holder:
    """This process as a holder, on the database's clock."""
    return Holder.this_process(now=record._store.read_lease()[1], ttl_s=ttl_s)


@contextlib.contextmanager
def heard(event: str, listener: Callable[..., None], source: type = sa.Engine) -> Iterator[None]:
    """Call `listener` at each such event of SQLAlchemy, in this process, during the block."""
    sa.event.listen(source, event, listener)
    try:
        yield
    finally:
        sa.event.remove(source, event, listener)


def eventually(met: Callable[[], bool]) -> bool:
    """Whether `met` comes true before patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.slow
def test_a_living_holder_refuses_others_and_is_named(
    record: StudyRecord, module_database_url: str
) -> None:
    with child(hold, module_database_url, record.name, LONG_S) as other:
        name = other.hear()
        assert str(record.holder) == name
        with pytest.raises(StudyHeldError, match=rf"{name} holds it since 20.* UTC; .*until 20"):
            record.hold().__enter__()
        other.tell(batch(0, 2))
        assert other.hear() == 2
        other.tell(None)
        assert other.hear() == "released"
    assert record.holder is None
    with record.hold():
        assert record.flush(batch(0, 3)) == 1


@pytest.mark.slow
def test_a_killed_holder_is_taken_over_at_once(
    record: StudyRecord, module_database_url: str
) -> None:
    """Its lease would last another hour; nobody waits for a process that is no more."""
    with child(hold, module_database_url, record.name, LONG_S) as other:
        other.hear()
        other.tell(batch(0, 2))
        other.hear()
        other.kill()
        assert record.holder is None
        with record.hold():
            assert record.flush(batch(0, 4)) == 2
    assert record.history() == batch(0, 4)


@pytest.mark.slow
def test_a_sleeping_holder_loses_the_lease_and_may_not_write(
    record: StudyRecord, module_database_url: str
) -> None:
    """A laptop that was closed: when it wakes, the study has gone on without it."""
    with child(hold, module_database_url, record.name, 0.5) as other:
        other.hear()
        other.signal(signal.SIGSTOP)
        assert eventually(lambda: record.holder is None)
        with record.hold(LONG_S):
            record.flush(batch(0, 2))
            other.signal(signal.SIGCONT)
            other.tell(batch(1, 2))
            refusal = other.hear()
            assert isinstance(refusal, StudyHeldError)
            assert f"{os.getpid()} holds it" in str(refusal)
            other.tell(None)
            assert other.hear() == "released"
            assert record.flush(batch(0, 3)) == 1  # it gave nothing back that is not its own
    assert record.history() == batch(0, 3)


@pytest.mark.slow
@pytest.mark.parametrize("database", ["tables"], indirect=True)  # best effort with public calls
def test_of_processes_that_race_one_wins(record: StudyRecord, module_database_url: str) -> None:
    others = [child(hold, module_database_url, record.name, LONG_S) for _ in range(4)]
    with others[0] as a, others[1] as b, others[2] as c, others[3] as d:
        heard = [other.hear() for other in (a, b, c, d)]
        assert sum(isinstance(message, StudyHeldError) for message in heard) == 3
        assert str(record.holder) in heard


def test_a_lease_is_renewed(record: StudyRecord) -> None:
    with record.hold(0.6) as lease:
        first = lease.holder
        assert eventually(lambda: record.holder.until > first.until)
        assert replace(record.holder, until=first.until) == first


@pytest.mark.slow
def test_a_renewal_tells_how_long_the_last_flush_took(record: StudyRecord) -> None:
    with record.hold(3.0) as lease:
        assert lease.holder.flush_s is None
        record.flush(batch(0, 3))
        told = eventually(lambda: getattr(record.holder, "flush_s", None) is not None)
        assert told, "others may know how it goes"
        assert record.holder.flush_s > 0


def test_a_lease_is_given_back_however_the_block_ends(record: StudyRecord) -> None:
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with contextlib.suppress(error), record.hold(LONG_S):
            assert record.holder.pid == os.getpid()
            raise error
        assert lease_text(record) == FREE
    with record.hold(), pytest.raises(StudyHeldError), record.hold():
        pass  # not even twice in the same process


def test_a_flush_needs_the_lease(record: StudyRecord) -> None:
    with pytest.raises(StudyHeldError, match="is not held by this process"):
        record.flush(batch(0, 1))
    with record.hold():
        pass
    with pytest.raises(StudyHeldError, match="is not held by this process"):
        record.flush(batch(0, 1))
    assert record.history() == []


@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_lease_is_noticed_and_fences_every_write(record: StudyRecord, taken: bool) -> None:
    with record.hold(0.3) as lease:
        thief = holder(record, ttl_s=LONG_S)
        while not lease.lost:  # a renewal may come in between
            record._store.swap_lease(lease_text(record), thief.to_json() if taken else FREE)
            time.sleep(0.02)
        with pytest.raises(StudyHeldError, match="lost its lease" if taken else "no longer holds"):
            record.flush(batch(0, 1))
        with pytest.raises(StudyHeldError):
            record.set_attribute("status", "finished")
    assert lease_text(record) == (thief.to_json() if taken else FREE)
    assert record.history() == []
    assert record.attributes == {}


def test_a_holder_on_another_machine_is_believed_until_its_lease_runs_out(
    record: StudyRecord,
) -> None:
    """A process id says nothing there: this process has one that no process has here."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    far = replace(holder(record, ttl_s=LONG_S), machine="elsewhere", host="far", pid=ended.pid)
    put_lease(record, far.to_json())
    with pytest.raises(StudyHeldError, match=f"stop process {ended.pid} on far"):
        record.hold().__enter__()
    put_lease(record, replace(far, until=far.since).to_json())
    with record.hold() as lease:
        assert record.holder.token == lease.token != far.token


def test_a_process_id_that_was_given_again_is_not_the_holder(record: StudyRecord) -> None:
    mine = holder(record, ttl_s=LONG_S)
    assert not mine.is_dead
    reused = replace(mine, process_started=mine.process_started - 100)
    assert reused.is_dead
    put_lease(record, reused.to_json())
    with record.hold():
        assert record.holder.token != reused.token


def test_a_killed_process_that_nobody_waited_for_is_dead(record: StudyRecord) -> None:
    """A zombie still has its id and its start time."""
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        process = psutil.Process(sleeper.pid)
        theirs = replace(
            holder(record, ttl_s=LONG_S), pid=sleeper.pid, process_started=process.create_time()
        )
        assert not theirs.is_dead
        sleeper.kill()
        assert eventually(lambda: process.status() == psutil.STATUS_ZOMBIE)
        assert theirs.is_dead
    finally:
        sleeper.kill()
        sleeper.wait()
    assert theirs.is_dead


def test_a_lease_row_is_replaced_only_where_it_is_as_it_was_read(record: StudyRecord) -> None:
    store = record._store
    assert not store.swap_lease("1", "2")
    assert store.swap_lease(None, "1")
    assert not store.swap_lease(None, "2")
    assert not store.swap_lease("2", "3")
    assert not store.swap_lease(FREE, "3")
    assert lease_text(record) == "1"
    assert store.swap_lease("1", FREE)
    assert lease_text(record) == FREE


@pytest.mark.parametrize("database", ["tables"], indirect=True)
def test_nobody_takes_the_lease_between_the_check_and_the_commit(
    record: StudyRecord, module_database_url: str
) -> None:
    """Else a flush that was checked in time could write into a study that has gone on."""
    thief = Connection(module_database_url, create=False)
    waiting = "PRAGMA busy_timeout = 50" if thief.is_sqlite else "SET lock_timeout = '50ms'"
    refusals: list[str] = []

    def steal(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("INSERT INTO trials "):
            return
        try:
            with thief.errors(), thief.engine.begin() as c:
                c.exec_driver_sql(waiting)
                c.exec_driver_sql("UPDATE study_user_attributes SET value_json = 'null'")
        except StorageError as error:
            refusals.append(str(error))

    with record.hold(LONG_S), heard("before_cursor_execute", steal):
        assert record.flush(batch(0, 2)) == 2
    thief.close()
    assert len(refusals) == 1
    assert "lock" in refusals[0]


@pytest.mark.parametrize("database", ["public"], indirect=True)
def test_with_public_calls_a_lost_lease_stops_a_batch_at_the_next_trial(
    record: StudyRecord, module_database_url: str
) -> None:
    with Database(module_database_url) as other, record.hold(LONG_S):
        theirs = other.open_study(record.name)
        written: list[str] = []

        def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO trials "):
                written.append(statement)

        def steal(*_: object) -> None:
            if len(written) == 2:  # and what was written is committed: its connection is free
                written.append("stolen")
                put_lease(theirs, FREE)

        with (
            heard("before_cursor_execute", note),
            heard("checkin", steal, sa.Pool),
            pytest.raises(StudyHeldError),
        ):
            record.flush(batch(0, 5))
    assert record.history() == batch(0, 2)


@pytest.mark.parametrize("text", ['"x"', "[1]", '{"token": "t"}', '{"until": []}'])
def test_a_lease_that_cannot_be_read_is_no_free_study(record: StudyRecord, text: str) -> None:
    put_lease(record, text)
    with pytest.raises(StorageError, match="lease"):
        record.hold().__enter__()
    assert lease_text(record) == text


def test_the_lease_is_one_study_attribute(record: StudyRecord) -> None:
    """The schema stays Optuna's own, and the attribute is not the caller's."""
    assert lease_text(record) is None
    with record.hold() as lease:
        stored = record._store.attributes()[LEASE_KEY]
        assert (stored["token"], stored["pid"]) == (lease.token, os.getpid())
        assert record.attributes == {}
