"""Several processes train one network: each takes its part of a batch, gradients are averaged.

Plain torch.distributed: whoever starts the processes (Ray Train, torchrun, a test) makes the
process group. All of them hold the same weights and the same optimizer state at every step, since
they start alike and apply the same averaged gradients, so weights are never sent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process among those that train together; the default is one that trains alone.

    Args:
        rank: 0 to size - 1. The first writes checkpoints.
        size: How many processes.
        group: Through which they talk; None is torch's default group.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    @classmethod
    def of_process_group(cls, group: dist.ProcessGroup | None = None) -> Team:
        """The processes of a group of torch.distributed that has been initialised."""
        return cls(rank=dist.get_rank(group), size=dist.get_world_size(group), group=group)

    @property
    def alone(self) -> bool:
        """Whether this process trains alone."""
        return self.size == 1

    def path(self, step: int) -> int:
        """The number of the path that this process takes in a step. Paths are numbered through all
        steps and, within a step, all processes. A process that trains alone gets `step` itself.
        """
        return step * self.size + self.rank

    def paths(self, step: int) -> range:
        """The numbers of all paths of a step, by rank."""
        return range(step * self.size, (step + 1) * self.size)

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of the images of a step, int64 (b): parts differ by one at most.

        Where a last batch has fewer images than there are processes, some images are taken twice,
        so that nobody is left without.
        """
        if len(batch) < self.size:
            batch = batch.repeat(math.ceil(self.size / len(batch)))[: self.size]
        return batch.tensor_split(self.size)[self.rank]

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their means over all processes, in one exchange.

        Args:
            parameters: Those that have a gradient in any process, of one dtype, in the same order
                in all processes. One that has none here counts as zero.
        """
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.flatten() for part in parts])
        self._sum(flat)
        flat /= self.size
        means = torch.split(flat, [p.numel() for p in parameters])
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean.view_as(parameter)

    def average(self, values: Tensor) -> Tensor:
        """The means over all processes; a value that is not finite anywhere is so everywhere."""
        if self.alone:
            return values
        total = values.clone()
        self._sum(total)
        return total / self.size

    def agrees_on(self, number: int, device: torch.device) -> bool:
        """Whether all processes call this with the same number.

        Args:
            number: Below 2**31.
            device: One on which this group can send.
        """
        if self.alone:
            return True
        ends = torch.tensor([number, -number], device=device)
        dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=self.group)
        largest, least = ends.tolist()
        return bool(largest == -least)

    def _sum(self, values: Tensor) -> None:
        dist.all_reduce(values, group=self.group)
