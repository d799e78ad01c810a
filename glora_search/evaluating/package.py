"""What a worker needs to evaluate subnets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from glora_search.cluster.packing import PackedSupernet, pack_split, unpack_split
from supernet import Architecture, Precision, Split, SubnetEvaluator, Supernet


@dataclass(frozen=True, kw_only=True)
class EvaluationPackage:
    """A supernet, and the split on which its subnets are scored.

    Args:
        supernet: With its trained weights.
        split: The split, packed.
        batch_size: Images in one forward pass.
        precision: The number format of the forward pass.
        device: `cpu`, or `cuda` for the worker's GPU.
        threads: CPU threads; every worker of a study uses the same number.
        calibrated: Whether the calibrated loss is measured too.
    """

    supernet: PackedSupernet
    split: Split | dict[str, Any]
    batch_size: int
    precision: Precision
    device: str
    threads: int
    calibrated: bool = False

    @classmethod
    def of(
        cls, supernet: Supernet, architecture: Architecture, split: Split, **how: Any
    ) -> EvaluationPackage:
        """Pack a supernet of this process; `how` gives the other fields."""
        packed = PackedSupernet.of(supernet, architecture)
        return cls(supernet=packed, split=pack_split(split), **how)

    @property
    def space(self) -> str:
        """JSON of the search space."""
        return self.supernet.space

    def unpack(self) -> SubnetEvaluator:
        """Rebuild the supernet on `device`, and set this process's number of threads."""
        torch.set_num_threads(self.threads)
        return SubnetEvaluator(
            self.supernet.unpack(self.device).eval(),
            unpack_split(self.split).to(self.device),
            batch_size=self.batch_size,
            precision=self.precision,
            calibrated=self.calibrated,
        )
