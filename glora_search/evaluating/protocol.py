"""The interface between the search loop and whatever evaluates candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from glora_search.records import Candidate, Outcome


class Evaluator(Protocol):
    """Evaluates candidates on the validation split.

    The loss and top-1 of a candidate do not depend on the implementation, on the number of workers,
    on which worker evaluated it, or on what was evaluated before it.
    """

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        """Outcomes as they arrive, in any order; one for each candidate.

        A candidate whose evaluation raises, gives a loss that is not finite, or ends its worker
        time and again, has an outcome that says so; the others are evaluated all the same. Whoever
        stops iterating early loses only what has not been yielded.

        Raises:
            ClusterError: There is no worker left to evaluate on, and none can be had.
        """
        ...

    def close(self) -> None:
        """Give back workers and memory. The evaluator is of no use afterwards; twice does no
        harm.
        """
        ...
