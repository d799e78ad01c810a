"""The ends of the logs of studies that run as jobs of a cluster, kept for those who ask often."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from search_spaces import GLoRASearchError

_log = logging.getLogger(__name__)

_FRESH_S: Final = 5.0  # the cluster sends a whole log each time
_MOST_CHARACTERS: Final = 6000
_MOST_STUDIES: Final = 500


class JobLogs:
    """What the latest jobs of studies have written. Nobody waits for the cluster: who asks gets
    what was read last, and a thread reads it again where that is old, one log at a time. Safe to
    use from several threads.

    Args:
        address: Dashboard of the cluster.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, str]] = {}
        self._pending: dict[str, None] = {}
        self._thread: threading.Thread | None = None

    def end(self, name: str, *, renew: bool = True) -> str:
        """The last lines of a study's log; empty before it was read, and where there is no job.

        Args:
            name: The study.
            renew: Whether to have it read again where it is old.
        """
        with self._lock:
            read_at, text = self._kept.get(name, (None, ""))
            if renew and (read_at is None or time.monotonic() - read_at >= _FRESH_S):
                self._pending[name] = None
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._read_pending, name="job-logs", daemon=True
                    )
                    self._thread.start()
            return text

    def _read_pending(self) -> None:
        while True:
            with self._lock:
                if not self._pending:
                    self._thread = None
                    return
                name = next(iter(self._pending))
            text = None
            try:
                text = self._read(name)
            except GLoRASearchError as error:  # what was read last still holds
                _log.warning("the log of study %r cannot be read for now: %s", name, error)
            finally:
                with self._lock:
                    self._pending.pop(name)
                    _, before = self._kept.pop(name, (None, ""))
                    self._kept[name] = (time.monotonic(), before if text is None else text)
                    if len(self._kept) > _MOST_STUDIES:
                        self._kept.pop(next(iter(self._kept)))

    def _read(self, name: str) -> str:
        from glora_search.operations.jobs import job_log

        text = job_log(name, self._address) or ""
        if len(text) <= _MOST_CHARACTERS:
            return text
        end = text[-_MOST_CHARACTERS:]
        return end.partition("\n")[2] or end  # whole lines, unless there is but one
