"""What a worker needs to evaluate subnets: plain values and arrays, sent once.

Ray keeps numpy arrays in its object store and maps them into every worker of a node without a copy;
tensors it would pickle. So weights and images travel as arrays.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

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
        split: A split, packed.
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
        return cls(
            architecture=architecture,
            space=supernet.space.to_json(),
            storage=supernet.storage,
            weights={k: v.cpu().numpy() for k, v in supernet.backbone.state_dict().items()},
            split=pack_split(split),
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
        return SubnetEvaluator(
            supernet.to(self.device).eval(),
            unpack_split(self.split).to(self.device),
            batch_size=self.batch_size,
            precision=self.precision,
        )


def pack_split(split: Split) -> Split | dict[str, Any]:
    """A split as it travels: of a decoded one its fields, with arrays in the place of tensors."""
    if not isinstance(split, TensorSplit):
        return split
    packed = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
    packed |= {"images": split.images.cpu().numpy(), "labels": split.labels.cpu().numpy()}
    return packed | {"device": torch.device("cpu")}


def unpack_split(packed: Split | dict[str, Any]) -> Split:
    """The split that `pack_split` packed, on the CPU, over the arrays themselves."""
    return TensorSplit(**packed) if isinstance(packed, dict) else packed
