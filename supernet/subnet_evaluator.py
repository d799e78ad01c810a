"""Evaluate subnets one after the other: each is merged into one plain network, which then runs."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from search_spaces import InvalidConfigError, SubnetConfig
from supernet.chain import BlockChain
from supernet.data import Split, TensorSplit
from supernet.evaluation import (
    Evaluation,
    Precision,
    Reading,
    autocast,
    autocast_dtype,
    figures_of,
)
from supernet.network import Supernet
from supernet.sharing import Step, walk

_CPU_SPARE_BYTES: Final = 2**31
_SPARE_SHARE: Final = 0.25
"""Of the free memory of a GPU, what images and what activations that are kept may take each."""


@dataclass(eq=False)
class _Batch:
    """What is kept from one subnet of a batch to the next.

    Args:
        merged: The subnet that the network holds; None where that is not known.
        kept: For each batch of images the activations by boundary.
    """

    merged: SubnetConfig | None = None
    kept: list[dict[int, Tensor]] = field(default_factory=list)


class SubnetEvaluator:
    """Evaluates subnets of one supernet on one split.

    Holds one plain network into which each subnet is merged, so that a candidate costs a merge and
    a forward of the original backbone, never the adapters' unmerged path. Images are normalised
    once where they fit.

    Args:
        supernet: Its weights are read, never changed.
        split: On which the figures are taken.
        batch_size: As in `evaluate_model`.
        precision: As in `evaluate_model`.
        calibrated: Whether the calibrated loss is among the figures.
        share_bytes: Memory for activations that subnets of a batch share; by default a quarter of
            what a GPU has free, or 2 GiB.
    """

    def __init__(
        self,
        supernet: Supernet,
        split: Split,
        *,
        batch_size: int = 256,
        precision: Precision = "fp32",
        calibrated: bool = False,
        share_bytes: int | None = None,
    ) -> None:
        self._supernet, self._split = supernet, split
        self._batch_size, self._precision = batch_size, precision
        self._calibrated = calibrated
        self._device = next(supernet.parameters()).device
        # In the type of the forward: autocast would cast every weight anew for each subnet.
        self._model = supernet.plain(dtype=autocast_dtype(self._device, precision))
        self._batches = self._normalised_once()
        self._share_bytes = _spare_bytes(self._device) if share_bytes is None else share_bytes
        self._chain: BlockChain | None = None
        self._looked_for_chain = False

    def __call__(self, subnet: SubnetConfig) -> Evaluation:
        """The figures of `subnet`.

        Raises:
            InvalidConfigError: `subnet` does not belong to the supernet's space.
            NonFiniteLossError: Its loss is NaN or infinite.
        """
        ((_, found),) = self.evaluate_each([subnet])
        if isinstance(found, Exception):
            raise found
        return found

    def evaluate_each(
        self, subnets: Sequence[SubnetConfig]
    ) -> Iterator[tuple[int, Evaluation | Exception]]:
        """(position in `subnets`, figures or what the evaluation raised), each once, in any order.

        The figures are those that calling this evaluator with one subnet gives. Subnets that are
        alike in their first blocks share what these compute, so the larger a batch is, the better.
        The supernet must not change before the last result is there; what is read of it is read
        anew in each call.
        """
        allowed = []
        for position, subnet in enumerate(subnets):
            try:
                self._supernet.space.validate(subnet)
                allowed.append(position)
            except InvalidConfigError as error:
                yield position, error
        # On a GPU the next subnet is queued before the result of this one is waited for.
        ahead = 1 if self._device.type == "cuda" else 0
        queued: deque[tuple[int, Reading | Exception]] = deque()
        batch = _Batch()
        for step in self._walk([subnets[position] for position in allowed]):
            since = time.perf_counter()
            position = allowed[step.position]
            try:
                queued.append((position, self._queue(subnets[position], step, batch)))
            except Exception as error:  # noqa: BLE001 - handed on as the result of this subnet
                batch = _Batch()
                queued.append((position, error))
            if len(queued) > ahead:
                yield self._read(*queued.popleft(), since)
        while queued:
            yield self._read(*queued.popleft(), time.perf_counter())

    @torch.inference_mode()
    def _queue(self, subnet: SubnetConfig, step: Step, batch: _Batch) -> Reading:
        """Merge and run; on a GPU this returns before either is done."""
        merged, batch.merged = batch.merged, None  # until all of it is
        self._supernet.merge_into(self._model, subnet, held=merged)
        batch.merged = subnet
        start = step.start if batch.kept and step.start in batch.kept[0] else 0

        def forward(number: int, images: Tensor) -> Tensor:
            if self._chain is None:
                logits: Tensor = self._model(images)
                return logits
            if number == len(batch.kept):
                batch.kept.append({})
            kept = batch.kept[number]
            logits, made = self._chain.run(
                self._model, images, start=start, kept=kept, keep=step.keep
            )
            batch.kept[number] = {d: t for d, t in (kept | made).items() if d in step.keep}
            return logits

        with autocast(self._device, self._precision):
            batches = self._batches or self._split.batches(self._batch_size)
            scored = self._split.scored_classes
            return Reading(
                figures_of(forward, batches, self._device, scored, calibrated=self._calibrated)
            )

    def _read(
        self, position: int, queued: Reading | Exception, since: float
    ) -> tuple[int, Evaluation | Exception]:
        if isinstance(queued, Exception):
            return position, queued
        try:
            return position, queued.evaluation(self._split, since)
        except Exception as error:  # noqa: BLE001 - handed on as the result of this subnet
            return position, error

    def _walk(self, subnets: Sequence[SubnetConfig]) -> list[Step]:
        """The order of a batch, and what is kept at each of its subnets."""
        chain = self._find_chain() if len(subnets) > 1 else None
        if chain is None:
            return [Step(position, 0, frozenset()) for position in range(len(subnets))]
        room = self._share_bytes // (chain.bytes_an_image * len(self._split))
        paths = [chain.path(subnet) for subnet in subnets]
        if not chain.has_stem or not room:
            return walk(paths, room)
        # The patch embedding is every subnet's.
        return [replace(step, keep=step.keep | {0}) for step in walk(paths, room - 1)]

    def _find_chain(self) -> BlockChain | None:
        if not self._looked_for_chain:
            context = autocast(self._device, self._precision)
            self._chain = BlockChain.find(self._model, self._supernet.layers, context)
            self._looked_for_chain = True
        return self._chain

    def _normalised_once(self) -> list[tuple[Tensor, Tensor]] | None:
        """All batches, if the split is decoded and there is room for it in float32."""
        split = self._split
        n_bytes = 4 * len(split) * math.prod(split.preprocessing.input_size)
        if not isinstance(split, TensorSplit) or n_bytes > _spare_bytes(self._device):
            return None
        return [
            (images.to(self._device), labels.to(self._device))
            for images, labels in split.batches(self._batch_size)
        ]


def _spare_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_SPARE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_SPARE_SHARE * (free + cached))


def evaluate_subnets(
    supernet: Supernet,
    subnets: Iterable[SubnetConfig],
    split: Split,
    *,
    batch_size: int = 256,
    precision: Precision = "fp32",
) -> list[Evaluation]:
    """The figures of several subnets on one split, in their order; see `SubnetEvaluator`."""
    listed = list(subnets)
    evaluator = SubnetEvaluator(supernet, split, batch_size=batch_size, precision=precision)
    found = dict(evaluator.evaluate_each(listed))
    evaluations = []
    for position in range(len(listed)):
        evaluation = found[position]
        if isinstance(evaluation, Exception):
            raise evaluation
        evaluations.append(evaluation)
    return evaluations
