"""The records of a search: a candidate is proposed, its outcome is the result of its evaluation.

Plain frozen records, without torch, Optuna or Ray: proposers read and make them, evaluators turn a
candidate into an outcome, the database stores an outcome as one trial.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from search_spaces import SubnetConfig

STUDY_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
"""What a study may be called: it names a folder as well, which must stay where it is put."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A subnet to evaluate, and where it comes from.

    Args:
        generation: Counted from 0, the random initial population.
        index: The place within the generation, counted from 0.
        operator: What made it: `random`, `mutation`, `crossover`, or the name of an Optuna sampler
            or of a warm start.
        parents: Digests of the subnets it was made of: none, one or two.
        subnet: The configuration.
        n_params: Trainable adapter scalars, without the head.
        price: What its size makes its fitness worse by, in the unit of the fitness; see
            `SearchSettings.size_price`.
    """

    generation: int
    index: int
    operator: str
    parents: tuple[str, ...]
    subnet: SubnetConfig
    n_params: int
    price: float = 0.0

    @property
    def place(self) -> tuple[int, int]:
        """(generation, index): the identity of a candidate within its study."""
        return self.generation, self.index


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of evaluating a candidate: numbers on the validation split, or an error.

    Args:
        candidate: What was evaluated.
        loss: Mean cross-entropy over the validation split, nats; None if it failed.
        top1: Fraction of the validation split that is right; None if it failed.
        eval_s: Seconds that the evaluation took.
        worker: Who evaluated it, such as `host:pid`.
        error_type: The class of the error; None unless it failed.
        error: One line on what went wrong; None unless it failed.
        calibrated_loss: The loss after a temperature was fitted to the same logits; None where that
            is not the fitness.
    """

    candidate: Candidate
    loss: float | None = None
    top1: float | None = None
    eval_s: float
    worker: str
    error_type: str | None = None
    error: str | None = None
    calibrated_loss: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the evaluation gave an error instead of numbers."""
        return self.error_type is not None
