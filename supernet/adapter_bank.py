"""Many tasks, one backbone: adapters that are attached, switched and detached.

An adapter is what a search leaves of one task: the active support tensors of a subnet and a
classifier head, a small part of the merged model's size.

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C            (* elementwise, broadcast)

Each adapted layer has one W, memory that all adapters share: a switch writes to it, which is a pass
over the layers whose A or B the new adapter uses. b and heads are small, and each adapter keeps its
own. Nothing is ever written to W0 and b0, so to detach is to put them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supernet.adapted_linear import Value
from supernet.adapted_network import check_called
from supernet.adapter import Adapter
from supernet.backbones import head_names
from supernet.errors import AdapterError
from supernet.fingerprints import backbone_fingerprint
from supernet.merging import merged_bias, merged_weight, stored_values


@dataclass(frozen=True, eq=False)
class _Task:
    """An adapter on the backbone's device.

    Args:
        factors: Layer to A and B, where it uses one of them.
        ready: Parameter name to what takes its place: biases and heads.
    """

    factors: Mapping[str, tuple[Value, Value]]
    ready: Mapping[str, nn.Parameter]


class AdapterBank:
    """One backbone and any number of adapters, of which at most one is attached.

    While an adapter is attached, `backbone` is a plain network with the task's merged weights and
    head, so all that runs a timm model runs it. Not for several threads at once.

    Args:
        backbone: A timm model with its original weights and a classifier head of any number of
            classes, on the device where it will run. It is taken over: frozen, and in evaluation
            mode.
        dtype: float32 or float64, in which weights are added up before the cast to the backbone's.
            float64 gives the weights of the exported model bit for bit; float32 is faster.

    Raises:
        BackboneError: The backbone has no classifier head.
    """

    def __init__(self, backbone: nn.Module, *, dtype: torch.dtype = torch.float32) -> None:
        self.backbone: Any = backbone.requires_grad_(False).eval()
        self.fingerprint = backbone_fingerprint(backbone)
        heads = head_names(backbone)
        self._head = {
            f"{head}.{leaf}": parameter
            for head in heads
            for leaf, parameter in backbone.get_submodule(head).named_parameters()
        }
        self._linears = {
            f"{name}.{leaf}": parameter
            for name, module in backbone.named_modules()
            if isinstance(module, nn.Linear) and name not in heads
            for leaf, parameter in module.named_parameters()
        }
        self._dtype = dtype
        self._device = next(backbone.parameters()).device
        self._tasks: dict[str, _Task] = {}
        self._merged: dict[str, nn.Parameter] = {}
        self._replaced: list[str] = []
        self._active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in the order in which they were added."""
        return tuple(self._tasks)

    @property
    def active(self) -> str | None:
        """The task that is attached; None where the backbone has its own weights."""
        return self._active

    def __call__(self, images: Tensor) -> Tensor:
        """Images (b, c, h, w) to logits (b, classes), by the task that is attached, else by the
        backbone and its own head.
        """
        logits: Tensor = self.backbone(images)
        return logits

    # Which tasks there are

    def add(self, name: str, adapter: Adapter | Path | str) -> None:
        """Take in an adapter; it is not attached.

        Args:
            name: Of the task.
            adapter: The directory of an export, or an adapter in memory, which is copied.

        Raises:
            AdapterError: There is a task of this name.
            CheckpointError: The adapter is missing or damaged, was trained on another backbone, or
                its tensors are not those of its configuration.
            BackboneError: It names layers that the backbone does not have, or gives a bias to a
                layer of which the backbone would not use it.
        """
        if name in self._tasks:
            raise AdapterError(
                f"there is an adapter {name!r} already; remove it first, or choose another name"
            )
        if not isinstance(adapter, Adapter):
            adapter = Adapter.load(adapter)
        adapter.check(f"adapter {name!r}", self.fingerprint, self._linears, self._head)
        with self._exactly():
            task = self._prepared(adapter)
            # Some attention adds a bias of its own and never calls the layer.
            biased = sorted(task.ready.keys() - self._linears.keys() - self._head.keys())
            check_called(self.backbone, [key.removesuffix(".bias") for key in biased])
            for layer in task.factors.keys() - self._merged.keys():
                self._merged[layer] = _frozen(torch.empty_like(self._linears[f"{layer}.weight"]))
        self._tasks[name] = task

    def remove(self, name: str) -> None:
        """Forget an adapter; it is detached first if it is attached.

        Raises:
            AdapterError: There is no such task.
        """
        self._task(name)
        if name == self._active:
            self.detach()
        del self._tasks[name]
        used = {layer for task in self._tasks.values() for layer in task.factors}
        self._merged = {layer: w for layer, w in self._merged.items() if layer in used}

    # Which one is attached

    def attach(self, name: str) -> None:
        """Make `backbone` the merged network of a task; whichever was attached is detached.

        Raises:
            AdapterError: There is no such task; what was attached stays so.
        """
        task = self._task(name)
        if name == self._active:
            return
        self.detach()
        try:
            with self._exactly():
                for layer, (a, b) in task.factors.items():
                    self._put(f"{layer}.weight", self._merge(layer, a, b))
            for parameter, value in task.ready.items():
                self._put(parameter, value)
        except BaseException:
            self.detach()
            raise
        self._active = name

    def detach(self) -> None:
        """Give `backbone` its own parameters back: the same objects, and never written to."""
        self._active = None
        for name in self._replaced:
            self._set(name, self._linears.get(name, self._head.get(name)))
        self._replaced.clear()

    @torch.no_grad()
    def classify(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """Classify a batch whose images belong to different tasks.

        The images of one task run together. Afterwards the task is attached that was before.

        Args:
            images: (b, c, h, w).
            tasks: The task of each image.

        Returns:
            The logits (classes of its task) of each image, in the order of the batch.

        Raises:
            AdapterError: There is no such task, or there are not as many tasks as images.
        """
        if len(images) != len(tasks):
            raise AdapterError(f"{len(images)} images need as many tasks; got {len(tasks)}")
        groups: dict[str, list[int]] = {}
        for position, name in enumerate(tasks):
            self._task(name)
            groups.setdefault(name, []).append(position)
        before = self._active
        found: dict[int, Tensor] = {}
        try:
            for name in sorted(groups, key=lambda name: name != before):  # no switch for the first
                self.attach(name)
                found |= zip(groups[name], self(images[groups[name]]), strict=True)
        finally:
            self.detach() if before is None else self.attach(before)
        return [found[position] for position in range(len(tasks))]

    # How

    def _task(self, name: str) -> _Task:
        if name not in self._tasks:
            known = ", ".join(map(repr, self._tasks)) or "none"
            raise AdapterError(f"there is no adapter {name!r}; the bank has {known}")
        return self._tasks[name]

    def _prepared(self, adapter: Adapter) -> _Task:
        tensors = {
            name: tensor.detach().to(self._device, copy=True)
            for name, tensor in adapter.tensors.items()
        }
        factors: dict[str, tuple[Value, Value]] = {}
        ready = {name: _frozen(tensors[name].to(own)) for name, own in self._head.items()}
        for layer, config in adapter.subnet.layers.items():
            a, b, c, d, e = stored_values(config, tensors, prefix=f"{layer}.")
            if a or b:
                factors[layer] = a, b
            if c or d or e:
                weight = self._linears[f"{layer}.weight"]
                b0 = self._linears.get(f"{layer}.bias")
                wide = None if b0 is None else b0.to(self._dtype)
                bias = merged_bias(weight.to(self._dtype), wide, c, d, e)
                assert bias is not None, "one of C, D and E adds one"
                ready[f"{layer}.bias"] = _frozen(bias.to(weight).contiguous())
        return _Task(factors, ready)

    def _merge(self, layer: str, a: Value, b: Value) -> nn.Parameter:
        weight, memory = self._linears[f"{layer}.weight"], self._merged[layer]
        out = memory if weight.dtype == self._dtype else None
        merged = merged_weight(weight.to(self._dtype), a, b, out=out)
        if merged is not memory:
            memory.copy_(merged)
        return memory

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        self._replaced.append(name)
        self._set(name, parameter)

    def _set(self, name: str, parameter: nn.Parameter | None) -> None:
        module, _, leaf = name.rpartition(".")
        owner = self.backbone.get_submodule(module)
        setattr(owner, leaf, parameter)
        if name in self._head and parameter is not None:
            self.backbone.num_classes = len(parameter)
            if isinstance(owner, nn.Linear):
                owner.out_features = len(parameter)

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """The caller's inference mode would forbid later writes; its autocast would round."""
        no_autocast = torch.autocast(self._device.type, enabled=False)
        with torch.inference_mode(False), torch.no_grad(), no_autocast:
            yield


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
