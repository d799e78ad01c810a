"""How much each choice of a trained supernet matters, to first order.

All support tensors add to W or b of their layer, in which a plain network is a function:

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C            (* elementwise, broadcast)

So the gradients G of the training loss by the merged W and b say what every choice would do: where
a choice adds the tensor V, the loss changes by <G, V> to first order. The score of a choice is
-<G, V>, the training loss that it takes away; `none` has 0. It is the saliency |gradient . weight|
with its sign: a choice that is expected to do harm must not count as one that helps.

The gradients are means over random subnets, one for each batch of training images. Near the
subnets of a search, a gradient at the backbone without any support tensor says little.
"""

from __future__ import annotations

import math
import random
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces import NO_LIMITS, ParamLimits
from supernet.data import Split
from supernet.layer import GLoRALinear
from supernet.network import Supernet

_BATCHES: Final = 32
_BATCH_SIZE: Final = 32
_DIGITS: Final = 6
"""Of a score, significant ones: more are not the same on all machines."""


def sensitivity(
    supernet: Supernet, train: Split, *, seed: int = 0, limits: ParamLimits = NO_LIMITS
) -> dict[str, dict[str, float]]:
    """For each gene the score of each of its choices; higher is better.

    It takes 32 steps of 32 images, forward and backward, in float32. Nothing of the supernet is
    changed.

    Args:
        supernet: Trained.
        train: The training split.
        seed: Of the images and of the random subnets.
        limits: On these subnets.
    """
    model = supernet.plain()
    layers = {name: model.get_submodule(name) for name in supernet.layers}
    differentiated = [p.requires_grad_(True) for each in layers.values() for p in each.parameters()]
    sums = [torch.zeros_like(parameter) for parameter in differentiated]
    draws = random.Random(f"{seed}/sensitivity")
    for images, labels in train.gather_each(_batches(len(train), seed)):
        supernet.merge_into(model, supernet.space.sample(draws, limits))
        loss = F.cross_entropy(model(images).float(), labels)
        # Not `backward`: the head is the supernet's own, and its gradient is none of ours.
        for total, gradient in zip(sums, torch.autograd.grad(loss, differentiated), strict=True):
            total += gradient / _BATCHES
    summed = dict(zip(map(id, differentiated), sums, strict=True))
    gradients = {
        name: (summed[id(layer.weight)], summed.get(id(layer.bias)))
        for name, layer in layers.items()
    }
    return {
        gene.name: {
            token: _score(supernet.layers[gene.layer], gene.support, token, *gradients[gene.layer])
            for token in gene.choices
        }
        for gene in supernet.space.genes
    }


def _batches(n: int, seed: int) -> list[Tensor]:
    """Positions of images: permutations of the split one after another, cut into batches."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    rounds = math.ceil(_BATCHES * _BATCH_SIZE / n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(rounds)])
    return list(torch.split(order[: _BATCHES * _BATCH_SIZE], _BATCH_SIZE))


@torch.no_grad()
def _score(
    layer: GLoRALinear, support: str, token: str, by_weight: Tensor, by_bias: Tensor | None
) -> float:
    """What a choice takes away of the loss, given the gradients by W (o, i) and by b (o)."""
    if token == "none":
        return 0.0
    value = layer.support(support, token)
    if support == "A":
        value = layer.weight * value
    elif support == "C":
        value = (layer.weight @ value).squeeze(1)
    elif support == "D" and layer.bias is not None:
        value = layer.bias * value
    gradient = by_weight if support in "AB" else by_bias
    if gradient is None:
        return 0.0
    score = -float((gradient.double() * value.double()).sum())
    return float(f"{score:.{_DIGITS - 1}e}") if math.isfinite(score) else 0.0
