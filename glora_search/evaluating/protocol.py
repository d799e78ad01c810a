"""The interfaces of evaluating: towards the search loop, and towards the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import SubnetConfig

if TYPE_CHECKING:  # a worker that needs no torch does not import it
    from supernet import Evaluation


class Evaluator(Protocol):
    """Evaluates candidates on the validation split.

    The loss and top-1 of a candidate do not depend on the implementation, on the number of workers,
    on which worker evaluated it, or on what was evaluated before it.
    """

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        """Outcomes as they arrive, in any order; one for each candidate.

        A sequence is a batch: all of it waits for workers from the start, and neighbours in it may
        be evaluated together. Any other iterable is a supply, for a search that makes a candidate
        when a worker is free: it is drawn from in the caller's thread, only when a worker has room,
        and after the outcomes that have arrived were yielded. Once it has ended, it is not asked
        again.

        A candidate whose evaluation raises, gives a loss that is not finite, or repeatedly ends its
        worker, has an outcome that says so; the others are evaluated all the same. A caller that
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


class SubnetScorer(Protocol):
    """Scores subnets in this process; `supernet.SubnetEvaluator` is the one that a search uses."""

    def evaluate_each(
        self, subnets: Sequence[SubnetConfig]
    ) -> Iterator[tuple[int, Evaluation | Exception]]:
        """(position in `subnets`, figures or what the evaluation raised), each once, in any
        order.
        """
        ...


class Package(Protocol):
    """What is sent to workers, once: `EvaluationPackage`, or a stand-in without a network."""

    @property
    def space(self) -> str:
        """JSON of the search space."""
        ...

    def unpack(self) -> SubnetScorer:
        """Make ready to score, in the process that will do it."""
        ...
