"""The interfaces of evaluation: to the search loop, and to the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import SubnetConfig

if TYPE_CHECKING:  # a worker that needs no torch does not import it
    from supernet import Evaluation


class Evaluator(Protocol):
    """Evaluates candidates on the validation split.

    The loss and top-1 of a candidate do not depend on the implementation, the number of workers,
    the worker that evaluated it, or the candidates that were evaluated before it.
    """

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        """Yield one outcome for each candidate, as outcomes arrive, in any order.

        A sequence is a batch: all of its candidates are known from the start, and similar ones may
        be evaluated together.

        Any other iterable is a supply, for a search that makes a candidate when a worker is free.
        The evaluator takes a candidate from it in the caller's thread, and only when a worker has
        room and all outcomes that have arrived were yielded. Once the supply has ended, the
        evaluator does not ask it again.

        If an evaluation raises, gives a loss that is not finite, or repeatedly ends its worker, the
        candidate's outcome holds the error; the other candidates are still evaluated. A caller that
        stops early loses only the outcomes that it was not given.

        Raises:
            ClusterError: No worker is left, and the cluster can give no new one.
        """
        ...

    def close(self) -> None:
        """Release workers and memory. The evaluator cannot be used afterwards. A second call
        does nothing.
        """
        ...


class SubnetScorer(Protocol):
    """Scores subnets in this process. A search uses `supernet.SubnetEvaluator`."""

    def evaluate_each(
        self, subnets: Sequence[SubnetConfig]
    ) -> Iterator[tuple[int, Evaluation | Exception]]:
        """For each of `subnets`, in any order: its position, and its figures or the exception of
        its evaluation.
        """
        ...


class Package(Protocol):
    """Sent to each worker once: an `EvaluationPackage`, or a stand-in without a network."""

    @property
    def space(self) -> str:
        """JSON of the search space."""
        ...

    def unpack(self) -> SubnetScorer:
        """Build the scorer, in the process that will use it."""
        ...
