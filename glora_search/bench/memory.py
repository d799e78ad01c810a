"""How much memory a training step needs, counted rather than watched.

The memory of a process on a CPU says little: an allocator keeps what it once had. So the tensors
that autograd saves for the backward pass are counted, and what the optimizer adds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def training_bytes(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Bytes of the activations that one step saves, the gradients, and AdamW's two moments.

    The weights themselves are left out: they are the same for all methods. The random state of the
    process is left as it was.

    Args:
        network: Left as it is; in training mode for the step.
        images: (b, c, h, w), on its device.
        labels: int64 (b,).
    """
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    training = network.training
    network.train()
    with (
        torch.random.fork_rng(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        loss = F.cross_entropy(network(images), labels)
    total = sum(saved.values())  # before the graph is freed, so no address comes twice
    del loss
    network.train(training)
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    return total + 3 * trained
