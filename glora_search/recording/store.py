"""The contract of a store: it keeps the trials, the attributes and the lease row of one study.

There are two stores. `TableStore` writes rows directly into Optuna's tables. It is a hundred times
faster, and is used if it knows Optuna's schema version. `PublicStore` uses only Optuna's public
calls and works with every version. Each reads what the other writes, and Optuna reads both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from glora_search.recording.trial_codec import JSON
from glora_search.study.outcomes import Outcome

RESERVED: Final = "glora_search:"
"""Prefix of the study attributes that are this package's own."""

LEASE_KEY: Final = f"{RESERVED}lease"
FREE: Final = "null"
"""The text of the lease row while no process holds the study."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many subnets are recorded, and the best value; None if no trial is complete."""

    n_complete: int
    n_failed: int
    best_value: float | None


class StudyStore(Protocol):
    """One study in the database. Safe to use from several threads.

    Every method raises StorageError if the database fails or its data are damaged.
    """

    def attributes(self) -> dict[str, Any]:
        """All user attributes of the study, the reserved ones as well."""
        ...

    def set_attribute(self, key: str, value: JSON, *, token: str | None) -> None:
        """Write one user attribute.

        Args:
            key: The attribute's name.
            value: Anything that JSON can hold.
            token: The lease under which to write; None to write without one.

        Raises:
            StudyHeldError: The lease row does not hold `token`.
        """
        ...

    def append(self, outcomes: Sequence[Outcome], *, token: str) -> int:
        """Record each outcome of a batch as a trial, in order; return how many were new.

        An outcome is skipped if the same subnet is already recorded at its (generation, index).

        Args:
            outcomes: The batch.
            token: The lease under which to write.

        Raises:
            StudyHeldError: The lease row does not hold `token`; nothing is written.
            StorageError: Also if another subnet is recorded at the place of an outcome; nothing is
                written.
        """
        ...

    def trials(self, since: int = 0) -> dict[int, Outcome]:
        """Our trials that are complete or failed: Optuna's trial number to outcome.

        Args:
            since: The lowest number; with 0 it is all of them. Numbers grow in the order in which
                trials are committed, so whoever asks again from the next number misses none.
        """
        ...

    def outlines(self, since: int = 0) -> dict[int, Outcome]:
        """As `trials`, but the layers of a subnet may be read only when they are first used. The
        database has to be open then, and the read raises the same errors as `trials`.
        """
        ...

    def tally(self) -> Tally:
        """Counts and best value of what `trials` returns, without reading the trials."""
        ...

    def values(self) -> list[float]:
        """The first value of each of our complete trials, in the order of their numbers."""
        ...

    def evaluation_s(self, within_s: float) -> dict[str, float]:
        """Worker to its seconds of evaluation, of trials recorded within the last `within_s`."""
        ...

    def read_lease(self) -> tuple[str | None, float]:
        """The text of the lease row (None if there is no row), and the database's clock."""
        ...

    def swap_lease(self, old: str | None, new: str) -> bool:
        """Replace the text of the lease row if it still is `old`; return whether it was."""
        ...
