"""Opening a database: one clear line for whatever is wrong with it, and nothing made by the way."""

from __future__ import annotations

import socket
import sqlite3
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from recording_cases import SPACE, batch

from glora_search.recording import Database
from glora_search.recording.connection import Connection
from glora_search.study.errors import StorageError
from glora_search.study.objectives import BY_LOSS


def refusal(url: str, *, create: bool) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(StorageError) as caught:
        Database.open(url, create)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_what_is_not_there_is_not_made_unless_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    assert f"there is no file {tmp_path / 'studies.db'}" in refusal(url, create=False)
    assert list(tmp_path.iterdir()) == []
    Database.open(url, True).close()
    Database.open(url, False).close()
    assert [path.name for path in tmp_path.iterdir()] == ["studies.db"]


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'missing' / 'studies.db'}"
    assert "there is no folder" in refusal(url, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert "is a folder" in refusal(f"sqlite:///{tmp_path}", create=True)


@pytest.mark.parametrize("create", [True, False])
def test_a_file_of_something_else_is_told_and_left_alone(tmp_path: Path, create: bool) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database at all, only words\n" * 50, encoding="utf-8")
    before = file.read_bytes()
    assert "file is not a database" in refusal(f"sqlite:///{file}", create=create)
    assert file.read_bytes() == before


def test_the_database_of_another_program_gets_no_tables_from_looking(tmp_path: Path) -> None:
    file = tmp_path / "places.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = file.read_bytes()
    assert "Optuna's tables are not there" in refusal(f"sqlite:///{file}", create=False)
    assert file.read_bytes() == before


def test_an_empty_database_has_no_tables_and_gets_them_when_told(database_url: str) -> None:
    refusal(database_url, create=False)
    Database.open(database_url, True).close()
    with Database.open(database_url, False) as database:
        assert database.list_studies() == []


def test_tables_of_another_optuna_are_told(database_url: str) -> None:
    with Database(database_url):
        pass
    connection = Connection(database_url, create=False)
    with connection.writing() as c:
        c.exec_driver_sql("UPDATE alembic_version SET version_num = 'v9.9.9.a'")
    connection.close()
    assert "optuna" in refusal(database_url, create=False)


def test_odd_characters_in_the_file_name(tmp_path: Path) -> None:
    """Optuna formats the URL and Alembic interpolates it: braces and percent signs matter."""
    url = f"sqlite:///{tmp_path}/{{a}} 100%25 {{0}}.db"
    Database(url).close()
    assert [path.name for path in tmp_path.iterdir()] == ["{a} 100% {0}.db"]


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = refusal(f"postgresql://ada:hunter2@127.0.0.1:{port}/studies", create=False)
    assert text.startswith(f"postgresql://ada:***@127.0.0.1:{port}/studies: ")
    assert "refused" in text
    assert "hunter2" not in text


@pytest.mark.postgres
def test_a_database_or_user_that_is_not_there(postgres_server: sa.URL) -> None:
    """The password is the user's name here, which the server repeats."""
    missing = f"x{uuid.uuid4().hex}"
    for url in (
        postgres_server.set(drivername="postgresql", database=missing),
        postgres_server.set(drivername="postgresql", username=missing, password=missing),
    ):
        text = refusal(url.render_as_string(hide_password=False), create=True)
        assert "FATAL" in text
        if url.password:
            assert missing not in text.replace(f"//{missing}:", "//:")


@pytest.mark.postgres
def test_a_server_that_knows_no_encoding(postgres_server: sa.URL) -> None:
    """What initdb makes in the locale C: it keeps bytes, which are ours to read as UTF-8."""
    name = f"glora_search_test_{uuid.uuid4().hex}"
    url = postgres_server.set(drivername="postgresql", database=name)
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    try:
        with Database(url.render_as_string(hide_password=False)) as database:
            attributes = {"what": "Größe 猫", "ünicode": 1}
            record = database.create_study(
                "s", space=SPACE, objectives=BY_LOSS, attributes=attributes
            )
            with record.hold():
                record.flush(batch(0, 3))
            assert record.attributes == attributes
            assert record.history() == batch(0, 3)
            assert [study.name for study in database.list_studies()] == ["s"]
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    text = refusal("postgresql://ada:hunter2@127.0.0.1/studies", create=True)
    assert "pip install 'glora-search[postgres]'" in text
    assert "hunter2" not in text


def test_every_sqlite_connection_syncs_file_and_folder(tmp_path: Path) -> None:
    """What was flushed outlives a power cut: 3 is EXTRA."""
    connection = Connection(f"sqlite:///{tmp_path / 'studies.db'}", create=True)
    with connection.reading() as a, connection.writing() as b:
        for c in (a, b):
            assert c.exec_driver_sql("PRAGMA synchronous").scalar() == 3
    connection.close()


def test_reading_sees_one_moment_while_another_writes(database_url: str) -> None:
    """A report made during a search counts the same trials in all of its tables."""
    with Database(database_url) as database:
        record = database.create_study("s", space=SPACE, objectives=BY_LOSS, attributes={})
        connection = Connection(database_url, create=False)
        count = "SELECT count(*) FROM trials"
        with record.hold():
            writer = threading.Thread(target=lambda: record.flush(batch(0, 3)))
            with connection.reading() as c:
                assert c.exec_driver_sql(count).scalar() == 0
                writer.start()
                writer.join(0.3)  # PostgreSQL lets it through, SQLite makes it wait
                assert c.exec_driver_sql(count).scalar() == 0
            writer.join()
        with connection.reading() as c:
            assert c.exec_driver_sql(count).scalar() == 3
        connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_server_that_restarted_is_connected_again(
    database_url: str, postgres_server: sa.URL
) -> None:
    """A search of days must outlive the night in which the server is updated."""
    admin = sa.create_engine(postgres_server, poolclass=sa.NullPool)
    with Database(database_url) as database:
        record = database.create_study("s", space=SPACE, objectives=BY_LOSS, attributes={})
        with record.hold():
            record.flush(batch(0, 2))
            with admin.connect() as connection:
                ended = connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE datname = '{sa.make_url(database_url).database}'"
                ).all()
            assert ended
            assert record.flush(batch(1, 2)) == 2
        assert len(record.history()) == 4


def test_the_clock_is_the_databases(database_url: str) -> None:
    """Compared with what the database calls the time, which SQLite tells in whole seconds."""
    connection = Connection(database_url, create=True)
    with connection.reading() as c:
        before = datetime.fromisoformat(str(c.exec_driver_sql("SELECT CURRENT_TIMESTAMP").scalar()))
        now = connection.now(c)
    if before.tzinfo is None:
        before = before.replace(tzinfo=UTC)
    assert before.timestamp() - 0.001 <= now <= connection.now()
    assert connection.now() - before.timestamp() < 600
    connection.close()


def test_errors_tell_no_statement_and_no_parameters(database_url: str) -> None:
    """A failed flush would otherwise print its twelve thousand rows."""
    connection = Connection(database_url, create=True)
    with pytest.raises(StorageError) as caught, connection.writing() as c:
        c.execute(sa.text("INSERT INTO nowhere VALUES (:x)"), {"x": "a parameter"})
    assert "nowhere" in str(caught.value)
    assert "INSERT" not in str(caught.value)
    assert "a parameter" not in str(caught.value)
    assert "\n" not in str(caught.value)
    connection.close()
