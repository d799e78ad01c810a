"""What a worker needs to evaluate subnets: plain values and arrays, sent once.

Ray keeps numpy arrays in its object store and maps them into every worker of a node without a copy;
tensors it would pickle. So weights and images travel as arrays.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glora_search.records import Candidate, Outcome
from search_spaces import SearchSpace
from supernet import (
    Architecture,
    Precision,
    Split,
    Storage,
    SubnetEvaluator,
    Supernet,
    TensorSplit,
)


@dataclass(frozen=True, kw_only=True)
class EvaluationPackage:
    """A supernet with its weights, and the split on which its subnets are scored.

    Args:
        architecture: Of the backbone.
        space: JSON of the search space.
        storage: How the supernet stores choices.
        weights: Every tensor of the supernet's backbone: frozen, support tensors, head.
        split: A split; a decoded one as its fields, with arrays in the place of tensors.
        batch_size: Images a forward.
        precision: Of the forward.
        device: `cpu`, or `cuda` for the GPU that the worker is given.
        threads: CPU threads; the same number wherever a study is evaluated.
    """

    architecture: Architecture
    space: str
    storage: Storage
    weights: dict[str, np.ndarray[Any, Any]]
    split: Split | dict[str, Any]
    batch_size: int
    precision: Precision
    device: str
    threads: int

    @classmethod
    def of(
        cls,
        supernet: Supernet,
        architecture: Architecture,
        split: Split,
        *,
        batch_size: int,
        precision: Precision,
        device: str,
        threads: int,
    ) -> EvaluationPackage:
        """Pack a supernet that is in this process."""
        packed: Split | dict[str, Any] = split
        if isinstance(split, TensorSplit):
            packed = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
            packed |= {"images": split.images.cpu().numpy(), "labels": split.labels.cpu().numpy()}
            packed["device"] = torch.device("cpu")
        return cls(
            architecture=architecture,
            space=supernet.space.to_json(),
            storage=supernet.storage,
            weights={k: v.cpu().numpy() for k, v in supernet.backbone.state_dict().items()},
            split=packed,
            batch_size=batch_size,
            precision=precision,
            device=device,
            threads=threads,
        )

    def unpack(self) -> SubnetEvaluator:
        """Build the supernet again, on `device`, and set this process's number of threads."""
        torch.set_num_threads(self.threads)
        supernet = Supernet(
            self.architecture.build(), SearchSpace.from_json(self.space), storage=self.storage
        )
        weights = {name: torch.tensor(array) for name, array in self.weights.items()}
        supernet.backbone.load_state_dict(weights)
        split = TensorSplit(**self.split) if isinstance(self.split, dict) else self.split
        return SubnetEvaluator(
            supernet.to(self.device).eval(),
            split.to(self.device),
            batch_size=self.batch_size,
            precision=self.precision,
        )


def worker_name() -> str:
    """Who evaluates: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def evaluate_candidate(evaluate: SubnetEvaluator, candidate: Candidate) -> Outcome:
    """The outcome of one candidate; what its evaluation raises becomes part of the record."""
    start = time.perf_counter()
    try:
        evaluation = evaluate(candidate.subnet)
    except Exception as error:  # noqa: BLE001 - recorded, and counted against max_failures
        return failed_outcome(candidate, error, worker_name(), time.perf_counter() - start)
    return Outcome(
        candidate=candidate,
        loss=evaluation.loss,
        top1=evaluation.top1,
        eval_s=evaluation.eval_s,
        worker=worker_name(),
    )


def failed_outcome(
    candidate: Candidate, error: BaseException, worker: str, eval_s: float
) -> Outcome:
    """The outcome that says what went wrong, in one line."""
    text = " ".join(str(error).split())[:500]
    return Outcome(
        candidate=candidate,
        eval_s=eval_s,
        worker=worker,
        error_type=type(error).__name__,
        error=text or type(error).__name__,
    )
