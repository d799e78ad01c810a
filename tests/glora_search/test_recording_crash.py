"""A flush that is interrupted anywhere: real processes, killed with SIGKILL."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from recording_cases import LARGE_SPACE, SPACE, batch
from recording_processes import child, die_in_flush, flush_for_ever, open_database

from glora_search.recording import Database, StudyRecord
from glora_search.study.objectives import BY_LOSS
from search_spaces import SearchSpace

_SIZE = 30


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with Database(module_database_url) as opened:
        assert opened.writes_tables
        yield opened


def study(database: Database, space: SearchSpace) -> StudyRecord:
    return database.create_study(uuid.uuid4().hex, space=space, objectives=BY_LOSS, attributes={})


def statements_of_a_flush(record: StudyRecord) -> list[str]:
    """What one flush of generation 1 executes, in order."""
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with record.hold():
        record.flush(batch(0, _SIZE))
        sa.event.listen(sa.Engine, "after_cursor_execute", note)
        try:
            record.flush(batch(1, _SIZE))
        finally:
            sa.event.remove(sa.Engine, "after_cursor_execute", note)
    return statements


@pytest.mark.slow
def test_a_flush_that_is_killed_after_any_of_its_statements_leaves_nothing(
    database: Database, module_database_url: str
) -> None:
    """The one before it is whole, and the next process records what is missing."""
    statements = statements_of_a_flush(study(database, SPACE))
    inserts = [text.split()[2] for text in statements if text.startswith("INSERT")]
    assert inserts == ["trials", "trial_values", "trial_user_attributes", "trial_params"]
    assert "INSERT" in statements[-1]  # the last kill is right before the commit
    first = statements.index(next(text for text in statements if text.startswith("INSERT")))
    for done in range(first, len(statements) + 1):
        record = study(database, SPACE)
        arguments = (module_database_url, record.name, SPACE, _SIZE, done)
        with child(die_in_flush, *arguments) as other:
            assert other.hear() == "begins"
            with pytest.raises(EOFError):
                other.hear()
            other.process.join()
            assert other.process.exitcode == -9
        assert record.history() == batch(0, _SIZE)
        with record.hold():
            assert record.flush(batch(0, _SIZE) + batch(1, _SIZE)) == _SIZE
        assert record.history() == batch(0, _SIZE) + batch(1, _SIZE)


@pytest.mark.slow
def test_flushing_in_a_loop_and_killed_leaves_whole_batches(
    database: Database, module_database_url: str
) -> None:
    """Killed at whatever moment, also within one statement; what was acknowledged is there."""
    record = study(database, LARGE_SPACE)
    acknowledged = -1
    for delay_s in (0.0, 0.01, 0.03):
        with child(flush_for_ever, module_database_url, record.name, _SIZE) as other:
            while other.hear() != ("ended", acknowledged + 1):
                pass
            acknowledged += 1
            other.hear()
            time.sleep(delay_s)
            other.kill()
            while other.pipe.poll():
                try:
                    said, generation = other.pipe.recv()
                except EOFError:
                    break
                acknowledged = generation if said == "ended" else acknowledged
        history = record.history()
        generations = len(history) // _SIZE
        assert generations > acknowledged
        assert history == [
            o for g in range(generations) for o in batch(g, _SIZE, space=LARGE_SPACE)
        ]
        acknowledged = generations - 1


@pytest.mark.slow
def test_studies_that_share_a_database_are_driven_at_the_same_time(
    database: Database, module_database_url: str
) -> None:
    """Two processes write in turns; each study has its own batches, all of them, and a lease."""
    records = [study(database, SPACE) for _ in range(2)]
    one, two = ((flush_for_ever, module_database_url, record.name, 5) for record in records)
    with child(*one) as a, child(*two) as b:
        for generation in range(6):
            for other in (a, b):
                assert other.hear() == ("begins", generation)
                assert other.hear() == ("ended", generation)
        holders = [record.holder for record in records]
        assert {holder.pid for holder in holders if holder} == {a.process.pid, b.process.pid}
    for record in records:
        history = record.history()
        assert len(history) >= 30
        assert history == [o for g in range(len(history) // 5) for o in batch(g, 5)]


@pytest.mark.slow
def test_processes_that_create_a_database_at_the_same_moment_all_get_it(database_url: str) -> None:
    """Two launches on a new server; Optuna's own creation of tables trips over itself."""
    arguments = (open_database, database_url)
    with child(*arguments) as a, child(*arguments) as b, child(*arguments) as c:
        for other in (a, b, c):
            assert other.hear() == "ready"
        for other in (a, b, c):
            other.tell("go")
        assert [other.hear() for other in (a, b, c)] == [0, 0, 0]
