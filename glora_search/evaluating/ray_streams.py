"""The results of a run on their way to the driver, in a cluster and through Ray's client.

A driver within the cluster gets them as a stream of Ray's. Through `ray://` there are none (Ray
2.60): the worker keeps the reports then, and each is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from glora_search.cluster.connection import ray
from glora_search.evaluating.results import Result
from search_spaces import Genome


class Stream(Protocol):
    """References to reports, each a list of results."""

    @property
    def awaited(self) -> Any:
        """The reference on which `ray.wait` waits for the next report, or for the end."""
        ...

    def __next__(self) -> Any:
        """The reference to the next report.

        Raises:
            StopIteration: There is none.
        """
        ...


def start_run(actor: Any, number: int, genomes: Sequence[Genome]) -> Stream:
    """Give an actor a run, and get the stream of its results."""
    if ray.util.client.ray.is_connected():
        return _Asked(actor, number, genomes)
    return _Streamed(actor, number, genomes)


class _Streamed:
    def __init__(self, actor: Any, number: int, genomes: Sequence[Genome]) -> None:
        streaming = actor.evaluate.options(num_returns="streaming")
        self.awaited = streaming.remote(number, genomes)

    def __next__(self) -> Any:
        return next(self.awaited)


class _Asked:
    """Every report that comes is followed by the question for the next."""

    def __init__(self, actor: Any, number: int, genomes: Sequence[Genome]) -> None:
        self._actor, self._number = actor, number
        self._run = actor.evaluate_and_keep.remote(number, genomes)
        self._over = False
        self.awaited = actor.report.remote(number)

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        reference, self._over = self.awaited, True  # unless it turns out well
        report: list[Result] | None = ray.get(reference)
        if report is None:
            ray.get(self._run)  # raises what the run has raised
            raise StopIteration
        self.awaited, self._over = self._actor.report.remote(self._number), False
        return reference
