"""Tells which database errors pass by themselves: a restart, a broken network, a lock.

All others (a wrong password, a missing table, a full disk) stay until somebody acts.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

_SQLITE_TRANSIENT: Final = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED
# 08: connection exceptions. 57P: the server goes down, has crashed, or comes up. 53300: too many
# connections. 40, 55: a deadlock, a serialization failure or a lock; a second try can succeed.
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
    """Whether a later attempt may succeed.

    Args:
        error: An exception of SQLAlchemy, or one of Optuna that was caused by one.
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
        return (code & 0xFF) in _SQLITE_TRANSIENT  # the upper bytes hold details
    state = getattr(driver, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_SQLSTATES)
    if error.connection_invalidated:
        return True
    # A server that refuses a connection gives its reason only as text.
    text = str(driver)
    if _REFUSED in text:
        return any(words in text for words in _REFUSED_FOR_NOW)
    return isinstance(error, sa.exc.OperationalError)
