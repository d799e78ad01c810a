"""Evaluation: run a plain network over a split, count and average."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import GLoRASearchError
from supernet.calibration import calibrated_loss
from supernet.data import Split

Precision = Literal["auto", "fp32", "bf16"]
"""Number format of a forward pass. `auto`: `bf16` on a GPU, `fp32` on a CPU."""

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
        eval_s: Seconds that the caller waited for the result, the merge included. On a GPU the next
            subnet of a batch is already running. Shared blocks are counted for the first subnet
            that computes them. The sum over a batch is the time that the batch took.
        calibrated_loss: The same loss after a temperature was fitted to the logits of this split;
            None where that was not asked for.
    """

    top1: float
    loss: float
    n_images: int
    eval_s: float
    calibrated_loss: float | None = None


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """bf16 where the study asks for it (`auto` does on CUDA); None computes as the weights are."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if bf16 else None


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision as the study asks for it: see `autocast_dtype`."""
    dtype = autocast_dtype(device, precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@torch.inference_mode()
def evaluate_model(
    model: nn.Module, split: Split, *, batch_size: int = 256, precision: Precision = "fp32"
) -> Evaluation:
    """Top-1 and loss of a plain network; it is put into evaluation mode.

    Args:
        model: Images (b, c, h, w) to logits (b, classes), on the device of the split's batches.
        split: What to run over, in its order. Where it has `scored_classes`, the logits of all
            other classes count as minus infinity.
        batch_size: Images in one forward. It changes the last digits of the result, so it has to be
            the same throughout a study.
        precision: See `autocast`; logits are summed up in float32 either way.

    Raises:
        NonFiniteLossError: The mean loss is NaN or infinite.
    """
    start = time.perf_counter()
    model.eval()
    device = next(model.parameters()).device
    with autocast(device, precision):
        batches = split.batches(batch_size)
        figures = figures_of(lambda _, images: model(images), batches, device, split.scored_classes)
    return Reading(figures).evaluation(split, start)


def figures_of(
    forward: Callable[[int, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    scored: frozenset[int] | None = None,
    *,
    calibrated: bool = False,
) -> Tensor:
    """Mean loss, number of images that are right, and the calibrated loss if that is asked for;
    float64 (2 or 3), on `device`: nothing waits.

    Args:
        forward: Number of the batch and its images (b, c, h, w) to logits (b, classes).
        batches: Images and labels.
        device: Where to compute.
        scored: The classes whose logits are compared; None for all.
        calibrated: Whether to fit a temperature, see `supernet.calibration`.
    """
    kept = class_index(scored, device)
    losses, hits, known = [], [], []
    for number, (images, labels) in enumerate(batches):
        logits = scored_logits(forward(number, images.to(device)), kept)
        labels = labels.to(device)
        losses.append(F.cross_entropy(logits.float(), labels, reduction="none"))  # (b)
        hits.append(logits.argmax(1) == labels)  # (b)
        if calibrated:
            known.append((logits.float(), labels))
    figures = [torch.cat(losses).double().mean(), torch.cat(hits).sum().double()]
    if calibrated:
        with torch.autocast(device.type, enabled=False):
            figures.append(calibrated_loss(*map(torch.cat, zip(*known, strict=True))))
    return torch.stack(figures)


def class_index(scored: frozenset[int] | None, device: torch.device) -> Tensor | None:
    """The scored classes for `scored_logits`, int64; made once, since a GPU waits for it."""
    return None if scored is None else torch.tensor(sorted(scored), device=device)


def scored_logits(logits: Tensor, kept: Tensor | None) -> Tensor:
    """The logits (b, classes) with minus infinity for all classes but those of `kept`; as they are
    where it is None.
    """
    if kept is None:
        return logits
    return torch.full_like(logits, -torch.inf).index_copy(1, kept, logits[:, kept])


class Reading:
    """Figures that a GPU may still be computing. `evaluation` waits for them, but not for work that
    was queued after them.
    """

    def __init__(self, figures: Tensor) -> None:
        self._figures = figures
        self._event: torch.cuda.Event | None = None
        if figures.is_cuda:
            self._figures = torch.empty_like(figures, device="cpu", pin_memory=True)
            self._figures.copy_(figures, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(figures.device))

    def evaluation(self, split: Split, since: float) -> Evaluation:
        """The figures as a record.

        Raises:
            NonFiniteLossError: The mean loss is NaN or infinite.
        """
        if self._event is not None:
            self._event.synchronize()
        loss, right, *calibrated = self._figures.tolist()
        if not loss < float("inf"):  # also false for NaN
            raise NonFiniteLossError(f"the loss on the {split.name} split is {loss}")
        return Evaluation(
            top1=int(right) / len(split),
            loss=round(loss, LOSS_DIGITS),
            n_images=len(split),
            eval_s=time.perf_counter() - since,
            calibrated_loss=round(calibrated[0], LOSS_DIGITS) if calibrated else None,
        )
