"""Where the low-rank support tensors start, from the gradients of the untrained network.

A change of W along the right singular vectors of its gradient G lowers the loss most in the first
steps (LoRA-GA, Wang et al. 2024, arXiv 2407.05000). `down` stays zero, so the untrained supernet is
still the backbone; `up` starts at those vectors, with the norm that it had. For A, whose change is
W0 * A, G is the gradient times W0. Legend: `i` in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.data import Split
from supernet.network import Supernet

_BATCHES: Final = 8


def start_at_gradients(supernet: Supernet, train: Split, *, batch_size: int, seed: int) -> None:
    """Set each `up` of A and B, in place.

    Args:
        supernet: Untrained.
        train: Its training split; up to eight batches are taken.
        batch_size: Images a batch.
        seed: Of the choice of images.
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    gradients = weight_gradients(supernet, train, order[: _BATCHES * batch_size], batch_size)
    with torch.no_grad():
        for name, layer in supernet.layers.items():
            for support, gradient in (
                ("B", gradients[name]),
                ("A", gradients[name] * layer.weight),
            ):
                up: Tensor = getattr(layer, f"{support}_up")  # (r, i)
                _, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
                n = min(len(up), len(right))
                norms = up[:n].norm(dim=1, keepdim=True)
                up[:n] = (right[:n] * norms).to(up.dtype)


def weight_gradients(
    supernet: Supernet, train: Split, order: Tensor, batch_size: int
) -> dict[str, Tensor]:
    """The mean gradients of the loss in the frozen weights, (o, i) by layer, at the backbone with
    the supernet's head.

    Args:
        supernet: Its frozen weights are frozen again afterwards.
        train: Where the images are from.
        order: int64 (n), the images.
        batch_size: Images a forward.
    """
    device = next(supernet.parameters()).device
    kept, mode = supernet.active_subnet, supernet.training
    supernet.set_active_subnet(None)
    supernet.eval()
    weights = {name: layer.weight for name, layer in supernet.layers.items()}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        for images, labels in train.gather_each(list(torch.split(order, batch_size))):
            logits = supernet(images.to(device))
            loss = F.cross_entropy(logits, labels.to(device), reduction="sum")
            found = torch.autograd.grad(loss, list(weights.values()))
            for name, gradient in zip(weights, found, strict=True):
                sums[name] += gradient / len(order)
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
        supernet.set_active_subnet(kept)
        supernet.train(mode)
    return sums
