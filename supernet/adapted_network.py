"""A frozen backbone with what a method adds to it, and a classifier head that trains.

Every method of `supernet.methods` makes one; the supernet of GLoRA is one as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from supernet.backbones import head_names, input_size
from supernet.checkpoints import check_shapes
from supernet.errors import BackboneError, MergeError


@runtime_checkable
class MergeableAdapter(Protocol):
    """A module that stands in the place of one of the backbone's, and can become plain again."""

    def merged(self) -> nn.Module:
        """A new module of the backbone's own kind that computes the same; this one is unchanged."""
        ...


class AdaptedNetwork(nn.Module):
    """A backbone in which only the classifier head and what a method adds are trained.

    A method subclasses it, or builds one and calls `replace` and `train_also`. Names of
    parameters are those in the backbone, so `blocks.0.attn.qkv.lora_down` says where it belongs.

    Args:
        backbone: A timm model with a classifier head. It is taken over: its modules are replaced in
            place, and its parameters are frozen.
        merges: Whether a plain network of the backbone's architecture can compute the same.
    """

    def __init__(self, backbone: nn.Module, *, merges: bool = True) -> None:
        super().__init__()
        self.merges = merges
        self.backbone = backbone
        self.head_names = head_names(backbone)
        self._replaced: dict[str, nn.Module] = {}
        self._trained_own: dict[str, Tensor] = {}
        backbone.requires_grad_(False)
        for module in backbone.modules():
            # EVA, BEiT and Swin v2 otherwise compute with qkv.weight and never call the layer.
            if hasattr(module, "qkv_bias_separate"):
                setattr(module, "qkv_bias_separate", True)  # noqa: B010 - not every module has it
        self.train_also(self._head_parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, c, h, w) to logits (b, classes)."""
        logits: Tensor = self.backbone(x)
        return logits

    # What a method does to the backbone

    def replace(self, name: str, module: nn.Module) -> None:
        """Put `module` in the place of the backbone's module `name`, until `detach`."""
        self._replaced.setdefault(name, self.backbone.get_submodule(name))
        self.backbone.set_submodule(name, module)

    def train_also(self, names: Iterable[str]) -> None:
        """Train parameters of the backbone's own; their values now are kept for `detach`."""
        for name in names:
            parameter = self.backbone.get_parameter(name).requires_grad_(True)
            self._trained_own[name] = parameter.detach().clone()

    def detach(self) -> nn.Module:
        """The backbone as it was before the method came, bit for bit; this network is of no use
        afterwards.
        """
        for name, module in self._replaced.items():
            self.backbone.set_submodule(name, module)
        with torch.no_grad():
            for name, value in self._trained_own.items():
                self.backbone.get_parameter(name).copy_(value)
        return self.backbone.requires_grad_(False)

    # What trains

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the backbone, parameter) of everything that trains, the head included."""
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    @property
    def n_params(self) -> int:
        """Trainable scalars without the head's."""
        head = set(self._head_parameters())
        return sum(p.numel() for name, p in self.trainable_parameters() if name not in head)

    def trainable_state(self) -> dict[str, Tensor]:
        """What training changes, by name; shared, not copied."""
        return {name: parameter.detach() for name, parameter in self.trainable_parameters()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `trainable_state` gave.

        Raises:
            CheckpointError: Names or shapes are not this network's; nothing is changed then.
        """
        mine = dict(self.trainable_parameters())
        shapes = {name: tuple(parameter.shape) for name, parameter in mine.items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
        check_shapes("the checkpoint", theirs, shapes)
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(state[name])

    def head_state(self) -> dict[str, Tensor]:
        """The classifier head's tensors by their names in the backbone."""
        return {
            f"{name}.{key}": tensor
            for name in self.head_names
            for key, tensor in self.backbone.get_submodule(name).state_dict().items()
        }

    def _head_parameters(self) -> list[str]:
        return [
            f"{name}.{key}"
            for name in self.head_names
            for key, _ in self.backbone.get_submodule(name).named_parameters()
        ]

    # What it leaves behind

    def merge(self) -> nn.Module:
        """A plain, independent network of the backbone's architecture that computes the same, in
        evaluation mode.

        Raises:
            MergeError: The method computes what no network of this architecture can.
        """
        if not self.merges:
            raise MergeError(
                "this network does not merge: its method adds computation that the backbone's "
                "architecture has no place for"
            )
        model = copy.deepcopy(self.backbone)
        for name in self._replaced:
            module = model.get_submodule(name)
            if isinstance(module, MergeableAdapter):
                model.set_submodule(name, module.merged())
        return model.requires_grad_(False).eval()


@torch.no_grad()
def check_called(backbone: nn.Module, names: Iterable[str]) -> None:
    """Run the backbone once on a black image, and raise unless it calls all the modules `names`.

    Raises:
        BackboneError: A module is never called: the backbone computes with its weight directly, so
            that adapting it would do nothing.
    """
    called: set[str] = set()

    def remember(name: str) -> Callable[..., None]:
        return lambda *_: called.add(name)

    names = list(names)
    handles = [
        backbone.get_submodule(name).register_forward_pre_hook(remember(name)) for name in names
    ]
    training = backbone.training
    try:
        parameter = next(backbone.parameters())
        backbone.eval()(torch.zeros((1, *input_size(backbone))).to(parameter))
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()
    if missed := [name for name in names if name not in called]:
        raise BackboneError(
            f"the backbone never calls {missed[0]!r}"
            + (f" and {len(missed) - 1} other layers" if len(missed) > 1 else "")
            + ": it computes with their weights directly, so they cannot be adapted; "
            "choose other patterns"
        )
