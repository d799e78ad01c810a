"""A database of a benchmark's own."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa


@contextmanager
def scratch_database(server: str | None) -> Iterator[str]:
    """The URL of an empty database: a temporary SQLite file, or one made on a PostgreSQL server
    beside the one that `server` names; gone afterwards.
    """
    if server is None:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/bench.db"
        return
    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    name = f"glora_search_bench_{uuid.uuid4().hex}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        own = url.set(drivername="postgresql", database=name)
        yield own.render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
