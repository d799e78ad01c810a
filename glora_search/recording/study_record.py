"""One study in the database, with what the search loop needs: its lease, flush and history."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from glora_search.recording.lease import Holder, Lease, check_token
from glora_search.recording.patience import PATIENCE_S, Patience, PatientStore
from glora_search.recording.store import RESERVED, StudyStore, Tally
from glora_search.recording.trial_codec import JSON
from glora_search.study.errors import StorageError, StudyHeldError
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import SearchSpace


class StudyRecord:
    """One study. Made by `Database.create_study` and `Database.open_study`.

    Attributes:
        name: The study's name.
        space: What its subnets are chosen from, as stored with the study.
        objectives: What it optimises.
    """

    def __init__(
        self, store: StudyStore, *, name: str, space: SearchSpace, objectives: Objectives
    ) -> None:
        self.name = name
        self.space = space
        self.objectives = objectives
        self._store = store
        self._lease: Lease | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """What `create_study` and `set_attribute` stored, as the database has it now."""
        return {
            key: value
            for key, value in self._store.attributes().items()
            if not key.startswith(RESERVED)
        }

    def set_attribute(self, key: str, value: JSON) -> None:
        """Write one attribute at once.

        Within `hold` the write is fenced like a flush. Outside of it any process may write.

        Raises:
            StorageError: The key is reserved, JSON cannot hold the value, or the database fails.
            StudyHeldError: The lease was lost.
        """
        check_attribute(key, value)
        token = None if self._lease is None else self._lease.token
        self._store.set_attribute(key, value, token=token)

    @contextmanager
    def hold(self, ttl_s: float = 30.0, *, patience_s: float = PATIENCE_S) -> Iterator[Lease]:
        """Hold the study while the block runs: no other process can flush into it.

        A thread renews the lease. When the block ends, in whatever way, the lease is released.
        While the study is held, every read and write waits for a database that is away. If the
        database is away for longer than the lease lasts, this process keeps the lease unless
        another process has taken it.

        Args:
            ttl_s: Seconds, above 0, for which the lease lasts after each renewal. If this machine
                crashes, others wait that long.
            patience_s: Seconds for which the database may be away before an error is raised.

        Raises:
            StudyHeldError: Another process holds the study; the message says which.
        """
        store = self._store
        lease = Lease.take(store, study=self.name, ttl_s=ttl_s)
        self._lease, self._store = lease, PatientStore(store, Patience(patience_s))
        try:
            yield lease
        finally:
            self._lease, self._store = None, store
            lease.release()

    def check_held(self) -> None:
        """Raise StudyHeldError unless this process holds the study, as the database has it now."""
        if self._lease is None:
            raise StudyHeldError(f"study {self.name!r} is not held by this process")
        text, _ = self._store.read_lease()
        check_token(text, token=self._lease.token, study=self.name)

    @property
    def holder(self) -> Holder | None:
        """Who holds the study; None if it is free, or its holder is known to have ended."""
        text, now = self._store.read_lease()
        holder = Holder.from_json(text)
        return None if holder is None or holder.is_over(now) else holder

    def flush(self, outcomes: Sequence[Outcome]) -> int:
        """Record a batch in one transaction: all of it is durable afterwards, or nothing is.

        Outcomes may be flushed again: each (generation, index) keeps its first outcome. Two threads
        must not call this at once.

        Args:
            outcomes: Any number of outcomes, recorded in this order.

        Returns:
            How many of them are new.

        Raises:
            StudyHeldError: Outside of `hold`, or the lease was lost to another process.
            StorageError: The database fails, an outcome holds numbers that are not finite, or
                another subnet is recorded at its place. Nothing of the batch is recorded.
            InvalidConfigError: A subnet is not of the study's search space. Nothing is recorded.
        """
        if self._lease is None:
            raise StudyHeldError(
                f"study {self.name!r} is not held by this process: flush within `record.hold()`"
            )
        if not outcomes:
            return 0
        since = time.perf_counter()
        n_new = self._store.append(outcomes, token=self._lease.token)
        self._lease.flush_s = time.perf_counter() - since
        return n_new

    def history(self) -> list[Outcome]:
        """All recorded outcomes, sorted by (generation, index)."""
        return sorted(self._store.trials().values(), key=lambda outcome: outcome.candidate.place)

    def trials(self, since: int = 0) -> dict[int, Outcome]:
        """Recorded outcomes by Optuna's trial number, as the dashboard shows it.

        Args:
            since: The lowest number; with 0 it is all of them.
        """
        return self._store.trials(since)

    def outlines(self, since: int = 0) -> dict[int, Outcome]:
        """As `trials`, many times as fast: the layers of a subnet are read when they are needed.

        Until then the database has to stay open. `read_layers` reads those of many at once.
        """
        return self._store.outlines(since)

    def best(self) -> Outcome | None:
        """The best outcome by `Objectives.rank`; None if there is none, or all failed."""
        complete = [outcome for outcome in self._store.trials().values() if not outcome.failed]
        return min(complete, key=self.objectives.rank, default=None)

    def values(self) -> list[float]:
        """The fitness of each complete trial, in the order of their numbers, without reading all of
        the trials; of several objectives the first.
        """
        return self._store.values()

    def tally(self) -> Tally:
        """How many outcomes are recorded, and the best value, without reading all of them."""
        return self._store.tally()

    def evaluation_s(self, within_s: float) -> dict[str, float]:
        """Worker to its seconds of evaluation, of outcomes recorded within the last `within_s`."""
        return self._store.evaluation_s(within_s)


def check_attribute(key: str, value: JSON) -> None:
    """Raise StorageError if `key` is reserved or JSON cannot hold `value`."""
    if key.startswith(RESERVED):
        raise StorageError(
            f"study attributes that begin with {RESERVED!r} are reserved; got {key!r}"
        )
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StorageError(f"study attribute {key!r} cannot be stored as JSON: {error}") from error
