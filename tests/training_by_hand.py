"""The reference for training in several processes: one that takes all paths and adds up."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor

from supernet import Recipe, Split, Supernet
from supernet.training import derive_seed, make_optimizer


def train_by_hand(
    supernet: Supernet, train: Split, recipe: Recipe, *, seed: int, size: int
) -> tuple[dict[str, Tensor], list[float]]:
    """What `size` processes should come to: the trained tensors, and the losses by epoch.

    Each step takes `size` paths one after the other, lets autograd add up their gradients, and
    divides. The images must divide into equal parts.
    """
    optimizer = make_optimizer(dict(supernet.trainable_parameters()), recipe)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs,
        lr_min=recipe.min_lr,
        warmup_t=min(recipe.warmup_epochs, recipe.epochs // 2),
        warmup_lr_init=recipe.warmup_lr,
    )
    supernet.train()
    path, means = 0, []
    for epoch in range(recipe.epochs):
        schedule.step(epoch)
        shuffled = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
        order = torch.randperm(len(train), generator=shuffled)
        losses = []
        for taken in torch.split(order, size * recipe.batch_size):
            optimizer.zero_grad(set_to_none=True)
            for part in taken.split(math.ceil(len(taken) / size)):
                images, labels = train.gather(part)
                drawn = random.Random(f"{seed}/step/{path}")
                supernet.set_active_subnet(supernet.space.sample(drawn))
                torch.manual_seed(derive_seed(seed, "step", path))
                loss = F.cross_entropy(supernet(images), labels)
                (loss / size).backward()
                losses.append(loss.item())
                path += 1
            optimizer.step()
        means.append(sum(losses) / len(losses))
    return {n: t.clone() for n, t in supernet.trainable_state().items()}, means
