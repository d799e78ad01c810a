"""Database URLs: which one is meant, which are accepted, how they are shown without a password."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from glora_search.recording.network_files import check_local
from glora_search.study.errors import StorageError, one_line

ENVIRONMENT: Final = "GLORA_SEARCH_STORAGE"
DEFAULT: Final = "sqlite:///glora-search.db"

_ACCEPTED: Final = "accepted: sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
_DRIVERS: Final = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
# Error messages repeat only what matches these. A piece of a password either does not match, or
# cannot be recognised as one.
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+]*")
_OPTION: Final = re.compile(r"[a-z_]+")
_ENCODE: Final = (
    "the database URL cannot be read; percent-encode special characters of the password "
    f"(@ as %40, : as %3A, / as %2F, ? as %3F); {_ACCEPTED}"
)


@dataclass(frozen=True)
class DatabaseURL:
    """An accepted database URL. Its `repr` and `shown` leave out password and options.

    Args:
        url: SQLAlchemy's form of it, with the driver that is used here.
    """

    url: sa.URL

    def __repr__(self) -> str:
        return f"DatabaseURL({self.shown})"

    @property
    def shown(self) -> str:
        """The URL for messages: without its password, and without the options after `?`."""
        dialect = self.url.get_backend_name()
        shown = self.url.set(drivername=dialect, query={})
        return shown.render_as_string(hide_password=True)

    @property
    def sqlite_file(self) -> Path | None:
        """The file of an SQLite database; None for a server."""
        if self.url.get_backend_name() != "sqlite":
            return None
        return Path(self.url.database or "")

    def scrub(self, message: str) -> str:
        """`message` on one line, with every secret of the URL replaced by `***`."""
        secrets = [str(self.url.password)] if self.url.password else []
        for key, value in self.url.query.items():
            if "pass" in key.lower():
                secrets += [value] if isinstance(value, str) else list(value)
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            message = message.replace(secret, "***")
        return one_line(message)


def parse_url(text: str) -> DatabaseURL:
    """The database that `text` names.

    Args:
        text: `sqlite:///relative.db`, `sqlite:////absolute.db`, or a PostgreSQL URL that begins
            with `postgresql://`, `postgres://` or `postgresql+psycopg://`.

    Raises:
        StorageError: No URL, another kind of database or driver, an SQLite database without a file,
            or a password with characters that have to be percent-encoded. The message repeats
            nothing that could be a part of a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        # It may be `user:secret@host`, so the message repeats it only if it holds no `@`.
        received = f"got {text!r}" if "@" not in text else "what was given has no '://'"
        raise StorageError(f"not a database URL: {received}; {_ACCEPTED}")
    if scheme not in _DRIVERS:
        kind = f"of the kind {scheme!r}" if _SCHEME.fullmatch(scheme) else "of that kind"
        raise StorageError(f"databases {kind} are not supported; {_ACCEPTED}")
    if scheme.startswith("postgres"):
        _check_user(rest)
    try:
        url = sa.make_url(f"{_DRIVERS[scheme]}://{rest}")
    except (ValueError, sa.exc.ArgumentError):
        # Not chained: the cause may quote a piece of the password.
        raise StorageError(_ENCODE) from None
    if url.get_backend_name() == "sqlite":
        _check_sqlite(url)
    return DatabaseURL(url)


def resolve_storage(url: str | None) -> str:
    """`url` if given, else GLORA_SEARCH_STORAGE if set, else `glora-search.db` here."""
    return url or os.environ.get(ENVIRONMENT) or DEFAULT


def driver_url(url: str | None) -> str:
    """As `resolve_storage`, for a process that will write to the database.

    Raises:
        StorageError: The URL is not accepted, or the SQLite file is on a network file system.
    """
    resolved = resolve_storage(url)
    file = parse_url(resolved).sqlite_file
    if file is not None:
        check_local(file)
    return resolved


def shown_url(url: str | None) -> str:
    """As `resolve_storage`, without password and options."""
    return parse_url(resolve_storage(url)).shown


def _check_user(rest: str) -> None:
    """Refuse a URL that could be split at a wrong place. A piece of the password would then be the
    name of the host or the database, which messages show.
    """
    if rest.count("@") > 1:
        raise StorageError(
            "the database URL has more than one '@': percent-encode those of the user name and "
            "password as %40"
        )
    user, at, _ = rest.partition("@")
    if at and not set(user).isdisjoint("/?#"):
        raise StorageError(_ENCODE)


def _check_sqlite(url: sa.URL) -> None:
    if url.host or url.username or url.port:
        raise StorageError(
            "an SQLite URL has three slashes before a relative path and four before an absolute "
            "one, such as sqlite:///studies.db"
        )
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StorageError(
            "an SQLite database must be a file, so that a study outlives its process; "
            "give one, such as sqlite:///studies.db"
        )
    if url.query:
        named = all(_OPTION.fullmatch(name) for name in url.query)
        got = f"; got {', '.join(sorted(url.query))}" if named else ""
        raise StorageError(
            f"an SQLite URL takes no options{got}; give the file alone, such as "
            "sqlite:///studies.db"
        )
