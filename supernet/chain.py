"""Networks that are a chain of blocks: a forward can start from activations of an earlier forward.

The result is exact: the reused tensors are the ones that the forward would compute itself. Legend:
boundary 0 lies after the patch embedding, boundary `d` after the first `d` blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from search_spaces import SubnetConfig
from supernet.backbones import input_size
from supernet.sharing import Path


class BlockChain:
    """A network that is a chain of blocks, whose forward can go on from any boundary.

    Made by `find`, which wraps the `forward` of each block: the wrapper returns a kept output if
    there is one, and else computes it. The network still computes the same.

    Attributes:
        n_blocks: Blocks in the chain.
        has_stem: Whether there is a boundary 0: a patch embedding that no subnet changes.
        bytes_an_image: What one boundary takes for one image.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[nn.Module],
        stem: nn.Module | None,
        layers: Sequence[Sequence[str]],
        bytes_an_image: int,
    ) -> None:
        self.n_blocks = len(blocks)
        self.has_stem = stem is not None
        self.bytes_an_image = bytes_an_image
        self._layers = layers
        self._tapped = [*enumerate(blocks, start=1), *([] if stem is None else [(0, stem)])]
        self._there: Mapping[int, Tensor] = {}
        self._keep: Collection[int] = ()
        self._made: dict[int, Tensor] = {}

    @classmethod
    def find(
        cls,
        model: nn.Module,
        layers: Iterable[str],
        context: AbstractContextManager[object] | None = None,
    ) -> BlockChain | None:
        """The chain of a network; None if the network is not a chain.

        This is tested by forwards of one image. The network is a chain if it has `blocks`, each
        block is called once and in order, its input is the output of the block before, and nothing
        else reads that output or writes to it.

        Args:
            model: In evaluation mode.
            layers: Names of the layers that subnets change.
            context: In which forwards run, such as an autocast.
        """
        found = getattr(model, "blocks", None)
        if not isinstance(found, nn.Sequential | nn.ModuleList) or not len(found):
            return None
        blocks, stem = list(found), getattr(model, "patch_embed", None)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn((1, *input_size(model)), generator=generator)
        images = images.to(next(model.parameters()).device)
        # Outside of inference mode tensors count what is written to them.
        with torch.inference_mode(False), torch.no_grad(), context or nullcontext():
            logits, calls = _observe(model, blocks, stem, layers, images)
            if not _are_chained(calls, len(blocks)) or not isinstance(logits, Tensor):
                return None
            chain = cls(
                blocks=blocks,
                stem=stem if _stem_is_constant(calls) else None,
                layers=_layers_of_blocks(calls, len(blocks)),
                bytes_an_image=max(c.tensor.nbytes for c in calls if c.what in ("leave", "stem")),
            )
            chain._tap()
            if not chain._agrees(model, images, logits):
                chain._untap()
                return None
        return chain

    def path(self, subnet: SubnetConfig) -> Path:
        """What the boundaries of `subnet` depend on."""
        return tuple(
            tuple(token for name in names for _, token in subnet.layers[name].items())
            for names in self._layers
        )

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        start: int,
        kept: Mapping[int, Tensor],
        keep: Collection[int],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The logits (b, classes), and the boundaries that are to be kept and were made now.

        Args:
            model: The network of this chain.
            images: (b, c, h, w).
            start: The boundary to go on from; 0, or one that `kept` holds.
            kept: What earlier forwards of the same images made.
            keep: Boundaries of which the activations are wanted.
        """
        there = dict.fromkeys(range(1, start + 1), kept[start]) if start else {}
        if 0 in kept:
            there[0] = kept[0]
        return self._run(model, images, there, keep)

    def _run(
        self, model: nn.Module, images: Tensor, there: Mapping[int, Tensor], keep: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        self._there, self._keep, self._made = there, keep, {}
        try:
            return model(images), self._made
        finally:
            self._there, self._keep, self._made = {}, (), {}

    def _agrees(self, model: nn.Module, images: Tensor, logits: Tensor) -> bool:
        """Whether the logits depend on the last boundary alone: all earlier ones are replaced by
        NaN, and the logits must stay the same.
        """
        again, made = self._run(model, images, {}, range(1, self.n_blocks + 1))
        there = {d: torch.full_like(tensor, torch.nan) for d, tensor in made.items()}
        there[self.n_blocks] = made[self.n_blocks]
        resumed, _ = self._run(model, images, there, ())
        return torch.equal(again, logits) and torch.equal(resumed, logits)

    def _tap(self) -> None:
        for boundary, module in self._tapped:
            module.forward = self._tapping(boundary, module.forward)

    def _untap(self) -> None:
        for _, module in self._tapped:
            del module.forward  # its class's own is left

    def _tapping(self, boundary: int, compute: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            if boundary in self._there:
                return self._there[boundary]
            made: Tensor = compute(*args, **kwargs)
            if boundary in self._keep:
                self._made[boundary] = made
            return made

        return forward


@dataclass(frozen=True, eq=False)
class _Call:
    """Something that happened in a forward: a block was entered or left, a layer was called, the
    patch embedding was left.
    """

    what: Literal["enter", "leave", "layer", "stem"]
    which: Any
    tensor: Any = None
    version: int = 0

    @classmethod
    def of(cls, what: Literal["enter", "leave", "stem"], which: Any, tensor: Any) -> _Call:
        version = tensor._version if isinstance(tensor, Tensor) else 0
        return cls(what, which, tensor, version)

    @property
    def untouched(self) -> bool:
        """Whether it is a tensor into which nothing has been written since."""
        return isinstance(self.tensor, Tensor) and self.tensor._version == self.version


def _observe(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    stem: nn.Module | None,
    layers: Iterable[str],
    images: Tensor,
) -> tuple[Any, list[_Call]]:
    """What the network gives, and what happened in its forward, in order."""
    calls: list[_Call] = []

    def enter(block: int) -> Any:
        return lambda _m, args: calls.append(_Call.of("enter", block, args[0] if args else None))

    def leave(what: Literal["leave", "stem"], block: int) -> Any:
        return lambda _m, _args, output: calls.append(_Call.of(what, block, output))

    def call(name: str) -> Any:
        return lambda _m, _args: calls.append(_Call("layer", name))

    handles = [] if stem is None else [stem.register_forward_hook(leave("stem", 0))]
    for number, block in enumerate(blocks, start=1):
        handles.append(block.register_forward_pre_hook(enter(number)))
        handles.append(block.register_forward_hook(leave("leave", number)))
    handles += [model.get_submodule(n).register_forward_pre_hook(call(n)) for n in layers]
    try:
        return model(images), calls
    finally:
        for handle in handles:
            handle.remove()


def _are_chained(calls: Sequence[_Call], n_blocks: int) -> bool:
    """Whether each block is called once, in order, with what the one before gave, and nothing
    writes to that.
    """
    passed = [call for call in calls if call.what in ("enter", "leave")]
    expected = [(what, n) for n in range(1, n_blocks + 1) for what in ("enter", "leave")]
    if [(call.what, call.which) for call in passed] != expected:
        return False
    handed_on = all(
        left.tensor is entered.tensor
        for left, entered in zip(passed[1::2], passed[2::2], strict=False)
    )
    return handed_on and all(call.untouched for call in passed[1::2])


def _stem_is_constant(calls: Sequence[_Call]) -> bool:
    """Whether the patch embedding is called once, before any layer that subnets change, and what it
    gives is not written to.
    """
    stems = [call for call in calls if call.what == "stem"]
    return len(stems) == 1 and calls[0] is stems[0] and stems[0].untouched


def _layers_of_blocks(calls: Sequence[_Call], n_blocks: int) -> list[list[str]]:
    """The layers on which each boundary depends, and the one before does not; layers that are
    called after the blocks are in none.
    """
    layers: list[list[str]] = [[] for _ in range(n_blocks)]
    known: set[str] = set()
    left = 0
    for call in calls:
        if call.what == "leave":
            left += 1
        elif call.what == "layer" and call.which not in known and left < n_blocks:
            known.add(call.which)
            layers[left].append(call.which)
    return layers
