"""The evaluator without Ray. It evaluates in this process, one candidate after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from glora_search.evaluating.protocol import Package
from glora_search.evaluating.results import score_run, worker_name
from glora_search.study.outcomes import Candidate, Outcome


class InProcessEvaluator:
    """Evaluates in the calling thread; see `Evaluator`.

    Args:
        package: The supernet and the split, as workers get them.
    """

    def __init__(self, package: Package) -> None:
        self._scorer = package.unpack()
        self._worker = worker_name()

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        """Outcomes of a batch, in the order that is cheapest for the network; or of a supply, in
        its order.
        """
        runs = [candidates] if isinstance(candidates, Sequence) else ([c] for c in candidates)
        for run in runs:
            for result in score_run(self._scorer, [c.subnet for c in run]):
                yield result.outcome(run[result.position], self._worker)

    def close(self) -> None:
        """Do nothing: the memory is freed with this object."""
