"""VPT: trainable prompt tokens beside the image's (Jia et al. 2022, arXiv 2203.12119).

Shallow: p prompts enter before the first block and go through all of them. Deep: every block gets p
prompts of its own in the place of those that the block before it has made. Prompts stand behind the
class token and leave after the last block. They start uniform within sqrt(6 / (c * patch + d)), as
published. Not a plain ViT: the sequence is longer. Legend: `b` batch, `n` tokens, `d` width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork
from supernet.errors import BackboneError


class PromptedBlock(nn.Module):
    """A block of a ViT with prompts that come and go.

    Args:
        base: The block.
        prefix: Tokens that stay in front: class token and registers.
        prompt: Enters before the block, (p, d); None where nothing does.
        leave_before: Prompts that leave before the block.
        leave_after: Prompts that leave after it.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        prefix: int,
        prompt: nn.Parameter | None,
        leave_before: int,
        leave_after: int,
    ) -> None:
        super().__init__()
        self.base, self.prefix = base, prefix
        self.leave_before, self.leave_after = leave_before, leave_after
        self.prompt = prompt

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n + p, d), or without the prompts after the last block."""
        head, tail = x[:, : self.prefix], x[:, self.prefix + self.leave_before :]
        if self.prompt is not None:
            x = torch.cat([head, self.prompt.expand(len(x), -1, -1).to(x.dtype), tail], dim=1)
        x = self.base(x)
        if self.leave_after:
            x = torch.cat([x[:, : self.prefix], x[:, self.prefix + self.leave_after :]], dim=1)
        return x


@dataclass(frozen=True, kw_only=True)
class _VPT:
    """Prompt tokens.

    Args:
        tokens: p. The paper tries up to 200; beyond 50 a small network computes mostly on prompts.
    """

    tokens: int = 10

    deep: ClassVar[bool]
    merges: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = "tokens"
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = 50

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        blocks = getattr(backbone, "blocks", None)
        prefix = getattr(backbone, "num_prefix_tokens", None)
        stem = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
        if not isinstance(blocks, nn.Sequential) or not isinstance(prefix, int) or stem is None:
            raise BackboneError(
                f"VPT needs a ViT of timm's, with blocks in a row; got {type(backbone).__name__}"
            )
        network = AdaptedNetwork(backbone, merges=self.merges)
        width = int(stem.out_channels)
        bound = math.sqrt(6 / (stem.weight[0].numel() + width))
        generator = torch.Generator().manual_seed(seed)
        for number, block in enumerate(list(blocks)):
            prompt = None
            if self.deep or number == 0:
                drawn = torch.empty(self.tokens, width).uniform_(-bound, bound, generator=generator)
                prompt = nn.Parameter(drawn.to(stem.weight))
            network.replace(
                f"blocks.{number}",
                PromptedBlock(
                    block,
                    prefix=prefix,
                    prompt=prompt,
                    leave_before=self.tokens if self.deep and number else 0,
                    leave_after=self.tokens if number + 1 == len(blocks) else 0,
                ),
            )
        return network


@dataclass(frozen=True, kw_only=True)
class VPTShallow(_VPT):
    """Prompts at the input."""

    name: ClassVar[str] = "vpt-shallow"
    deep: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class VPTDeep(_VPT):
    """Fresh prompts before every block."""

    name: ClassVar[str] = "vpt-deep"
    deep: ClassVar[bool] = True
