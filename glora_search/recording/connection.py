"""Opens a database through Optuna's RDBStorage, and turns each of its errors into one clear line.

Durability: a committed transaction is on the disk. PostgreSQL ensures this by itself, unless its
administrator turned `synchronous_commit` off. Every SQLite connection runs with
`synchronous=EXTRA`, which syncs the file and its folder at each commit.

SQLite keeps its default journal, not the write-ahead log. The log does not work on network file
systems, where the home folders of a cluster often are, and it keeps files beside the database that
a copy would miss. Its advantage is that one process can write while others read. That is worth
little here: one writer commits every few seconds and can wait.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy as sa

from glora_search.recording.shielding import shielded
from glora_search.recording.storage_url import DatabaseURL, parse_url
from glora_search.recording.transience import is_transient
from glora_search.study.errors import StorageError, StorageUnavailableError

_log = logging.getLogger(__name__)

_OPTUNA_TABLES: Final = frozenset({"alembic_version", "studies", "trials", "version_info"})
_CREATE_ATTEMPTS: Final = 10
_RETRY_S: Final = 0.2
_BUSY_TIMEOUT_S: Final = 60


class Connection:
    """An open database, with transactions that read and transactions that write.

    An error of SQLAlchemy, its drivers or Optuna's storage becomes a StorageError of one line. It
    names the database and never holds its password. Safe to use from several threads.

    Args:
        text: The database's URL.
        create: Whether to make the SQLite file and Optuna's tables where they are missing.

    Raises:
        StorageError: The URL is not accepted, the driver is missing, the database does not answer,
            or the file is no database. Without `create` also: the file or Optuna's tables are
            missing.
    """

    def __init__(self, text: str, *, create: bool) -> None:
        self._url = parse_url(text)
        file = self._url.sqlite_file
        if file is not None:
            _check_file(file, self._url, create=create)
        self._probe(create=create)
        self.storage = self._open_storage(create=create)

    @property
    def shown(self) -> str:
        """The URL as it may be printed."""
        return self._url.shown

    @property
    def engine(self) -> sa.Engine:
        """The engine of Optuna's storage."""
        engine: sa.Engine = self.storage.engine
        return engine

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is an SQLite file."""
        return self._url.sqlite_file is not None

    def close(self) -> None:
        """Close all pooled connections. The object cannot be used afterwards."""
        self.storage.remove_session()
        self.engine.dispose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the database raises inside the block into a StorageError of one line.

        It is a StorageUnavailableError if a later attempt may succeed. An interruption is delivered
        when the block has ended.
        """
        try:
            with shielded():
                yield
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            kind = StorageUnavailableError if is_transient(error) else StorageError
            raise kind(f"{self.shown}: {self._told(error)}") from error

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes. When the block ends, all of it is durable, or none of it."""
        with self.errors(), self.engine.begin() as connection:
            if self.is_sqlite:
                # This takes the write lock first, so that what the block reads stays true until it
                # writes. SQLite can refuse the writes of a transaction that began with a read.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that reads. All of its statements see the database as of one moment."""
        with self.errors(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    def now(self, connection: sa.Connection | None = None) -> float:
        """The database's clock, seconds since 1970 UTC; for SQLite it is the clock of this host.

        Args:
            connection: The transaction in which to ask; None opens a new one.
        """
        if connection is None:
            with self.reading() as own:
                return self.now(own)
        clock = (
            "SELECT (julianday('now') - 2440587.5) * 86400.0"
            if self.is_sqlite
            else "SELECT extract(epoch FROM clock_timestamp())"
        )
        return float(connection.exec_driver_sql(clock).scalar_one())

    def _probe(self, *, create: bool) -> None:
        """Connect once, so that a wrong database is found before anything is created."""
        engine = self._engine()
        try:
            with self.errors():
                tables = set(sa.inspect(engine).get_table_names())
        finally:
            engine.dispose()
        if not create and not tables >= _OPTUNA_TABLES:
            raise StorageError(
                f"{self.shown} holds no studies: Optuna's tables are not there; check the URL, or "
                "launch a study, which makes them"
            )

    def _engine(self) -> sa.Engine:
        try:
            return sa.create_engine(self._url.url, **self._engine_options())
        except ImportError as error:
            raise StorageError(
                f"{self.shown} needs the driver psycopg 3, which is not installed ({error}); "
                "install it with: pip install 'glora-search[postgres]'"
            ) from error

    def _engine_options(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"connect_args": {"timeout": _BUSY_TIMEOUT_S, "factory": _DurableConnection}}
        # With these a server that is gone is noticed: at once when we connect, within a minute when
        # it falls silent later. Options of the URL override them.
        arguments: dict[str, Any] = {
            "client_encoding": "utf8",  # a database in SQL_ASCII would give bytes
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,  # ms without an acknowledgement of what was sent
        }
        arguments = {k: v for k, v in arguments.items() if k not in self._url.url.query}
        return {"pool_pre_ping": True, "connect_args": arguments}

    def _open_storage(
        self, *, create: bool, attempts: int = _CREATE_ATTEMPTS
    ) -> optuna.storages.RDBStorage:
        text = self._url.url.render_as_string(hide_password=False)
        # Optuna uses the URL as a format string.
        text = text.replace("{", "{{").replace("}", "}}")
        try:
            return optuna.storages.RDBStorage(
                text, engine_kwargs=self._engine_options(), skip_table_creation=not create
            )
        except RuntimeError as error:  # Optuna raises it for tables of another version
            raise StorageError(f"{self.shown}: {self._told(error)}") from error
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # If two processes create the tables at the same moment, one of them fails. Creating
            # leaves existing tables alone, so the failed process can simply try again.
            if not create or attempts == 1:
                raise StorageError(f"{self.shown}: {self._told(error)}") from error
            _log.debug("creating the tables of %s again: %s", self.shown, self._told(error))
        time.sleep(_RETRY_S)
        return self._open_storage(create=create, attempts=attempts - 1)

    def _told(self, error: BaseException) -> str:
        """The driver's message on one line, without the statement and its parameters."""
        if isinstance(error, optuna.exceptions.StorageInternalError):
            error = error.__cause__ or error
        if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
            error = error.orig
        message, _, _ = str(error).partition("\nLINE ")  # where PostgreSQL repeats the statement
        return self._url.scrub(message) or type(error).__name__


class _DurableConnection(sqlite3.Connection):
    """An SQLite connection whose commits survive a power cut."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous=EXTRA").close()


def _check_file(file: Path, url: DatabaseURL, *, create: bool) -> None:
    if file.is_dir():
        raise StorageError(f"{url.shown}: {file} is a folder; give the path of a file")
    if not create and not file.is_file():
        raise StorageError(
            f"{url.shown}: there is no file {file}; check the path and the working directory "
            f"({Path.cwd()}), or launch a study, which makes it"
        )
    if not file.parent.is_dir():
        raise StorageError(f"{url.shown}: there is no folder {file.parent}; make it first")
