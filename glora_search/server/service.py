"""What the routes of one process share: the settings and the open database."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from glora_search.server.settings import ServerSettings

if TYPE_CHECKING:
    from glora_search.recording import Database


class Service:
    """The settings and the open database. Safe to use from several threads.

    Args:
        settings: What the server was told.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """The database, opened when it is first needed, so that a server starts without it.

        Raises:
            StorageError: It cannot be opened.
        """
        with self._lock:
            if self._database is None:
                from glora_search.recording import Database

                self._database = Database.open(self.settings.storage, create=True)
            return self._database

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
