"""Streams of a run's results to the driver, within a cluster and through Ray's client.

A driver within the cluster gets the results by Ray's streaming. Ray's client (`ray://`) has no
streaming (Ray 2.60): there the worker keeps its reports, and the driver asks for each.
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
        """The reference for `ray.wait`; it is ready when the next report or the end is there."""
        ...

    def __next__(self) -> Any:
        """The reference to the next report.

        Raises:
            StopIteration: There is none.
        """
        ...


def start_run(actor: Any, number: int, genomes: Sequence[Genome]) -> Stream:
    """Give an actor a run; returns the stream of its results."""
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
    """Asks for the next report as soon as one has come."""

    def __init__(self, actor: Any, number: int, genomes: Sequence[Genome]) -> None:
        self._actor, self._number = actor, number
        self._run = actor.evaluate_and_keep.remote(number, genomes)
        self._over = False
        self.awaited = actor.report.remote(number)

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        reference, self._over = self.awaited, True  # stays so if the next lines raise
        report: list[Result] | None = ray.get(reference)
        if report is None:
            ray.get(self._run)  # raises the run's error, if any
            raise StopIteration
        self.awaited, self._over = self._actor.report.remote(self._number), False
        return reference
