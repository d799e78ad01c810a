"""The results of a run, as workers send them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from glora_search.evaluating.protocol import SubnetScorer
from glora_search.study.errors import one_line
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import SubnetConfig


class Result(NamedTuple):
    """The result of one subnet of a run. Its candidate stays with the driver.

    Args:
        position: The subnet's position in the run.
        eval_s: Seconds that the evaluation took.
        loss: As in `Outcome`; so are the fields that follow.
    """

    position: int
    eval_s: float
    loss: float | None = None
    top1: float | None = None
    error_type: str | None = None
    error: str | None = None
    calibrated_loss: float | None = None

    def outcome(self, candidate: Candidate, worker: str) -> Outcome:
        """The outcome of the candidate whose subnet stood at `position`."""
        return Outcome(
            candidate=candidate,
            loss=self.loss,
            top1=self.top1,
            calibrated_loss=self.calibrated_loss,
            eval_s=self.eval_s,
            worker=worker,
            error_type=self.error_type,
            error=self.error,
        )


def score_run(scorer: SubnetScorer, subnets: Sequence[SubnetConfig]) -> Iterator[Result]:
    """Yield the results of a run one by one. If an evaluation raises, its result holds the error.

    Raises:
        RuntimeError: The scorer did not evaluate all subnets.
    """
    left = set(range(len(subnets)))
    since = time.perf_counter()
    for position, figures in scorer.evaluate_each(subnets):
        left.remove(position)
        if isinstance(figures, Exception):
            yield failure(position, figures, eval_s=time.perf_counter() - since)
        else:
            yield Result(
                position,
                figures.eval_s,
                figures.loss,
                figures.top1,
                calibrated_loss=getattr(figures, "calibrated_loss", None),  # not every scorer's
            )
        since = time.perf_counter()
    if left:
        raise RuntimeError(f"{len(left)} of {len(subnets)} subnets were not evaluated")


def failure(position: int, error: BaseException, *, eval_s: float) -> Result:
    """The result of a failed evaluation, with the error in one line."""
    text = one_line(error, limit=500)
    kind = type(error).__name__
    return Result(position, eval_s, error_type=kind, error=text or kind)


def worker_name() -> str:
    """This process as `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"
