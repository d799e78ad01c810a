"""The contract of what keeps one study: trials, attributes and the lease row.

There are two stores. `TableStore` writes rows into Optuna's own tables, which is a hundred times
faster, and is used where Optuna's schema version is one that it knows. `PublicStore` uses Optuna's
public calls alone and works with every version. What either writes, the other reads, and so does
Optuna.
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
    """How many subnets are recorded, and the best value; None where none is complete."""

    n_complete: int
    n_failed: int
    best_value: float | None


class StudyStore(Protocol):
    """One study in the database. Safe to use from several threads.

    Every method raises StorageError where the database fails or holds what it should not.
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
            StudyHeldError: The lease row does not carry `token`.
        """
        ...

    def append(self, outcomes: Sequence[Outcome], *, token: str) -> int:
        """Record a batch, in its order, each outcome as a trial; returns how many were new.

        A place (generation, index) that is recorded already is skipped where it is the same subnet.

        Args:
            outcomes: The batch.
            token: The lease under which to write.

        Raises:
            StudyHeldError: The lease row does not carry `token`; nothing is written.
            StorageError: Also where a place is taken by another subnet; nothing is written.
        """
        ...

    def trials(self) -> dict[int, Outcome]:
        """Optuna's trial number to outcome, for all trials of ours that are complete or failed."""
        ...

    def tally(self) -> Tally:
        """Counts and best value of the trials that `trials` would return, without reading them."""
        ...

    def read_lease(self) -> tuple[str | None, float]:
        """The text of the lease row (None where there is no row), and the database's clock."""
        ...

    def swap_lease(self, old: str | None, new: str) -> bool:
        """Replace the text of the lease row if it still is `old`; returns whether it was."""
        ...
