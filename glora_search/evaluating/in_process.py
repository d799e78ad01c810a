"""The evaluator without Ray: one candidate after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from glora_search.evaluating.package import EvaluationPackage, evaluate_candidate
from glora_search.records import Candidate, Outcome


class InProcessEvaluator:
    """Evaluates in the calling thread; see `Evaluator`.

    Args:
        package: The supernet and the split, as a worker would get them.
    """

    def __init__(self, package: EvaluationPackage) -> None:
        self._evaluate = package.unpack()

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        """Outcomes in the order of `candidates`."""
        for candidate in candidates:
            yield evaluate_candidate(self._evaluate, candidate)

    def close(self) -> None:
        """Nothing to give back but memory, which goes with this object."""
