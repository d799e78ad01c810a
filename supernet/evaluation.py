"""Evaluation: merge a subnet once, run the plain network over a split, count and average."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from search_spaces import GLoRASearchError, SubnetConfig
from supernet.data import Split
from supernet.network import Supernet

Precision = Literal["auto", "fp32", "bf16"]

LOSS_DIGITS = 6
"""Decimals to which a mean loss is rounded: float32 sums are stable to about 1e-7 of it."""


class NonFiniteLossError(GLoRASearchError, ArithmeticError):
    """A network's loss on a split is not a number."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A network's figures on one split.

    Args:
        top1: Fraction of images whose largest logit is the label's.
        loss: Mean cross-entropy, nats, rounded to LOSS_DIGITS decimals.
        n_images: Images in the split.
        eval_s: Seconds, the merge included.
    """

    top1: float
    loss: float
    n_images: int
    eval_s: float


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision as the study asks for it: `auto` is bf16 on CUDA and float32 elsewhere."""
    if precision == "bf16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@torch.inference_mode()
def evaluate_model(
    model: nn.Module, split: Split, *, batch_size: int = 256, precision: Precision = "fp32"
) -> Evaluation:
    """Top-1 and loss of a plain network; it is put into evaluation mode.

    Args:
        model: Images (b, c, h, w) to logits (b, classes), on the device of the split's batches.
        split: What to run over, in its order.
        batch_size: Part of the result's last digits: one value a study.
        precision: See `autocast`; logits are summed up in float32 either way.

    Raises:
        NonFiniteLossError: The mean loss is NaN or infinite.
    """
    start = time.perf_counter()
    model.eval()
    device = next(model.parameters()).device
    losses, hits = [], []
    for images, labels in split.batches(batch_size):
        with autocast(device, precision):
            logits = model(images.to(device))
        labels = labels.to(device)
        losses.append(F.cross_entropy(logits.float(), labels, reduction="none"))  # (b)
        hits.append(logits.argmax(1) == labels)  # (b)
    loss = torch.cat(losses).double().mean().item()
    right = int(torch.cat(hits).sum().item())
    if not loss < float("inf"):  # also false for NaN
        raise NonFiniteLossError(f"the loss on the {split.name} split is {loss}")
    return Evaluation(
        top1=right / len(split),
        loss=round(loss, LOSS_DIGITS),
        n_images=len(split),
        eval_s=time.perf_counter() - start,
    )


class SubnetEvaluator:
    """Evaluates subnets of one supernet on one split, one after the other.

    Holds one plain network into which each subnet is merged, so that a candidate costs a merge and
    a forward of the original backbone, never the adapters' unmerged path.

    Args:
        supernet: Its weights are read, never changed.
        split: On which the figures are taken.
        batch_size: As in `evaluate_model`.
        precision: As in `evaluate_model`.
    """

    def __init__(
        self,
        supernet: Supernet,
        split: Split,
        *,
        batch_size: int = 256,
        precision: Precision = "fp32",
    ) -> None:
        self._supernet, self._split = supernet, split
        self._batch_size, self._precision = batch_size, precision
        self._model = supernet.plain()

    def __call__(self, subnet: SubnetConfig) -> Evaluation:
        """The figures of `subnet`.

        Raises:
            InvalidConfigError: `subnet` does not belong to the supernet's space.
            NonFiniteLossError: Its loss is NaN or infinite.
        """
        start = time.perf_counter()
        self._supernet.space.validate(subnet)
        self._supernet.merge_into(self._model, subnet)
        evaluation = evaluate_model(
            self._model, self._split, batch_size=self._batch_size, precision=self._precision
        )
        return Evaluation(
            top1=evaluation.top1,
            loss=evaluation.loss,
            n_images=evaluation.n_images,
            eval_s=time.perf_counter() - start,
        )


def evaluate_subnets(
    supernet: Supernet,
    subnets: Iterable[SubnetConfig],
    split: Split,
    *,
    batch_size: int = 256,
    precision: Precision = "fp32",
) -> list[Evaluation]:
    """The figures of several subnets on one split, in their order; see `SubnetEvaluator`."""
    evaluate = SubnetEvaluator(supernet, split, batch_size=batch_size, precision=precision)
    return [evaluate(subnet) for subnet in subnets]
