"""The weight-sharing supernet: a frozen backbone, GLoRA layers in it, one trainable head."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from search_spaces import InvalidConfigError, SearchSpace, SubnetConfig
from supernet.adapted_network import AdaptedNetwork, check_called
from supernet.errors import BackboneError
from supernet.layer import GLoRALinear, Storage


class Supernet(AdaptedNetwork):
    """All subnets of a search space over one backbone, in one network.

    Only the support tensors and the classifier head train; the head belongs to every subnet. The
    active subnet decides what `forward` computes; without one it is the backbone.

    Args:
        backbone: A timm model with a classifier head. It is taken over: its linear layers are
            replaced in place and its parameters are frozen.
        space: The search space over layers of this backbone.
        storage: How the choices of one support tensor are stored, see `GLoRALinear`.
        seed: Of the initial `up` matrices; the process's own generator is left as it was.

    Raises:
        BackboneError: A layer of the space is not a linear layer of the backbone, has another
            shape, or is never called (its module computes with the weight directly), so that
            adapting it would do nothing.
    """

    def __init__(
        self,
        backbone: nn.Module,
        space: SearchSpace,
        *,
        storage: Storage = "entangled",
        seed: int = 0,
    ) -> None:
        super().__init__(backbone)
        self.space = space
        self.storage = storage
        self._active: SubnetConfig | None = None
        self.layers: dict[str, GLoRALinear] = {}
        generator = torch.Generator().manual_seed(seed)
        for spec in space.layers:
            base = _linear(backbone, spec.name)
            if (base.in_features, base.out_features, base.bias is not None) != (
                spec.in_features,
                spec.out_features,
                spec.bias,
            ):
                raise BackboneError(f"layer {spec.name!r} of the backbone is {base}, not {spec}")
            self.layers[spec.name] = GLoRALinear(base, space.ranks, storage, generator=generator)
            self.replace(spec.name, self.layers[spec.name])
        check_called(backbone, self.layers)

    @property
    def active_subnet(self) -> SubnetConfig | None:
        """What `forward` computes; None is the backbone with the current head."""
        return self._active

    def set_active_subnet(self, subnet: SubnetConfig | None) -> None:
        """Set what `forward` computes.

        Raises:
            InvalidConfigError: `subnet` does not belong to the space; the active one is kept.
        """
        if subnet is not None:
            self.space.validate(subnet)
        for name, layer in self.layers.items():
            layer.config = None if subnet is None else subnet.layers[name]
        self._active = subnet

    def active_parameters(self, subnets: Iterable[SubnetConfig]) -> list[nn.Parameter]:
        """The parameters that a step with any of `subnets` gives a gradient: the head's, and those
        of the support tensors that it uses; in the order of `trainable_parameters`.
        """
        active = {
            id(parameter)
            for subnet in subnets
            for name, layer in self.layers.items()
            for parameter in layer.active_parameters(subnet.layers[name])
        }
        for name in self.head_names:
            active |= {id(p) for p in self.backbone.get_submodule(name).parameters()}
        return [p for _, p in self.trainable_parameters() if id(p) in active]

    def plain(self, *, dtype: torch.dtype | None = None) -> nn.Module:
        """The backbone without GLoRA, in evaluation mode, to be filled by `merge_into`.

        Every tensor that no subnet changes, the head's too, is shared with this supernet. Layers to
        which C or E may give a bias have one.

        Args:
            dtype: Of the layers that subnets change; the backbone's if not given. With the dtype of
                an autocast, the forward does not have to cast their weights.
        """
        shared = {id(t): t for t in [*self.backbone.parameters(), *self.backbone.buffers()]}
        model = copy.deepcopy(self.backbone, shared)
        for name, layer in self.layers.items():
            linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
                nn.Linear,
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None or self._may_add_bias(name),
                device=layer.weight.device,
                dtype=dtype or layer.weight.dtype,
            )
            model.set_submodule(name, linear.requires_grad_(False))
        self.merge_into(model, None)
        return model.eval()

    @torch.no_grad()
    def merge_into(
        self,
        model: nn.Module,
        subnet: SubnetConfig | None,
        *,
        dtype: torch.dtype = torch.float32,
        held: SubnetConfig | None = None,
    ) -> None:
        """Write the merged weights of `subnet` into a model made by `plain`; None writes the
        backbone's.

        Args:
            model: Of this supernet.
            subnet: Of this supernet's space.
            dtype: In which weights are added up, before casts to the backbone's and to the model's.
            held: What was merged into `model` last, with the support tensors of now: layers that
                both configure alike are left as they are.
        """
        for name, layer in self.layers.items():
            config = None if subnet is None else subnet.layers[name]
            if held is not None and config == held.layers[name]:
                continue
            linear = _linear(model, name)
            weight, bias = layer.merged_tensors(config, dtype=dtype, out=linear.weight)
            if weight is not linear.weight:
                linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
            elif linear.bias is not None:
                linear.bias.zero_()

    def merge(
        self, subnet: SubnetConfig | None = None, *, dtype: torch.dtype = torch.float64
    ) -> nn.Module:
        """A plain, independent copy of the backbone that computes what `subnet` computes.

        Args:
            subnet: Of this supernet's space; the active one if not given.
            dtype: float64 or float32, in which weights are added up before the cast to the
                backbone's.

        Returns:
            A model in evaluation mode with the backbone's own state-dict names. Layers of the
            backbone without bias keep none, unless C or E of any of them is active: then each that
            may have a bias has one (zero where nothing was added), as timm builds such models.

        Raises:
            InvalidConfigError: `subnet` does not belong to the space, or none is given or active.
        """
        subnet = subnet or self._active
        if subnet is None:
            raise InvalidConfigError("no subnet is given, and none is active: nothing to merge")
        self.space.validate(subnet)
        model = copy.deepcopy(self.plain())
        self.merge_into(model, subnet, dtype=dtype)
        self._drop_unused_biases(model, [subnet])
        return model.requires_grad_(False)

    @torch.no_grad()
    def merge_average(self, subnets: Sequence[SubnetConfig]) -> nn.Module:
        """A plain, independent copy of the backbone whose weights are the means of those of
        `merge(subnet)`, taken in float64. A bias that a merged subnet lacks counts as zero.

        Args:
            subnets: One or more of this supernet's space; one that is there twice counts twice.

        Raises:
            InvalidConfigError: There are none, or one does not belong to the space.
        """
        if not subnets:
            raise InvalidConfigError("no subnets are given: nothing to average")
        for subnet in subnets:
            self.space.validate(subnet)
        model = copy.deepcopy(self.plain())
        for name, layer in self.layers.items():
            linear = _linear(model, name)
            weight = torch.zeros_like(linear.weight, dtype=torch.float64)
            bias = torch.zeros(layer.out_features, dtype=torch.float64, device=weight.device)
            for subnet in subnets:
                merged, added = layer.merged_tensors(subnet.layers[name])
                weight += merged
                if added is not None:
                    bias += added
            linear.weight.copy_(weight / len(subnets))
            if linear.bias is not None:
                linear.bias.copy_(bias / len(subnets))
        self._drop_unused_biases(model, subnets)
        return model.requires_grad_(False)

    def _drop_unused_biases(self, model: nn.Module, subnets: Iterable[SubnetConfig]) -> None:
        """Take away the biases that `plain` has added, unless one of `subnets` uses one of them."""
        unbiased = [name for name, layer in self.layers.items() if layer.bias is None]
        configs = [subnet.layers[name] for subnet in subnets for name in unbiased]
        if all(config.C == config.E == "none" for config in configs):
            for name in unbiased:
                _linear(model, name).register_parameter("bias", None)

    def _may_add_bias(self, name: str) -> bool:
        return any(
            choice != "none"
            for gene in self.space.genes
            if gene.layer == name and gene.support in "CE"
            for choice in gene.choices
        )


def _linear(backbone: nn.Module, name: str) -> nn.Linear:
    try:
        module = backbone.get_submodule(name)
    except AttributeError:
        raise BackboneError(f"the backbone has no layer {name!r}") from None
    if not isinstance(module, nn.Linear):
        raise BackboneError(f"{name!r} is {type(module).__name__}, not a linear layer")
    return module
