"""Real databases for the tests: an SQLite file, and a PostgreSQL server where one answers."""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

_VARIABLE = "GLORA_SEARCH_TEST_DATABASE_URL"
_DIALECTS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def _server(text: str) -> sa.URL:
    """The URL's server, with the driver that the project uses, if it answers and lets us in."""
    url = sa.make_url(text).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect():
            return url
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> sa.URL:
    """A database of a PostgreSQL server on which this session may create others; skips without one.

    A server that was named explicitly has to answer.
    """
    if named := os.environ.get(_VARIABLE):
        return _server(named)
    faults = []
    for user in ("postgres", getpass.getuser()):
        try:
            return _server(f"postgresql://{user}@127.0.0.1:5432/test")
        except sa.exc.OperationalError as error:
            faults.append(f"{user}: {' '.join(str(error.orig).split())}")
    pytest.skip(
        f"no PostgreSQL on the loopback ({'; '.join(faults)}); {_VARIABLE} can name another"
    )


def _database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'studies.db'}"
        return
    server: sa.URL = request.getfixturevalue("postgres_server")
    name = f"glora_search_test_{uuid.uuid4().hex}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=_DIALECTS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of this test's own; on SQLite the file is not there yet."""
    yield from _database(request, tmp_path)


@pytest.fixture(scope="module", params=_DIALECTS)
def module_database_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same, shared by the tests of one module; each of them makes studies of its own names."""
    yield from _database(request, tmp_path_factory.mktemp("database"))
