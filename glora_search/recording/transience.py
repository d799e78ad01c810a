"""Which errors of a database pass by themselves: it restarts, is out of reach, or is locked.

All others (a wrong password, a missing table, a full disk) stay until a person acts.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

_SQLITE_TRANSIENT: Final = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED
# 08: connection exceptions; the server goes down, has crashed, or comes up; too many connections;
# a deadlock or a serialization failure, which the same statements survive the next time.
_SQLSTATES: Final = ("08", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03")
_REFUSED: Final = "FATAL:"
_REFUSED_FOR_NOW: Final = (
    "starting up",
    "shutting down",
    "not yet accepting connections",
    "not accepting connections",
    "in recovery mode",
    "terminating connection",
    "too many clients",
    "connection slots are reserved",
)


def is_transient(error: BaseException | None) -> bool:
    """Whether the same may succeed a while later.

    Args:
        error: What SQLAlchemy raised, or an exception of Optuna's that it caused.
    """
    while error is not None and not isinstance(error, sa.exc.SQLAlchemyError):
        error = error.__cause__
    if isinstance(error, sa.exc.TimeoutError):  # every pooled connection is in use
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    driver = error.orig
    code = getattr(driver, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _SQLITE_TRANSIENT  # the upper bytes say more
    state = getattr(driver, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_SQLSTATES)
    if error.connection_invalidated:
        return True
    # While connecting, a server that refuses says why in words alone.
    text = str(driver)
    if _REFUSED in text:
        return any(words in text for words in _REFUSED_FOR_NOW)
    return isinstance(error, sa.exc.OperationalError)
