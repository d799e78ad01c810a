"""Adapters: what was trained for one task, in a file or in memory, and which backbone it fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from search_spaces import SubnetConfig
from supernet.checkpoints import check_shapes
from supernet.errors import BackboneError, CheckpointError
from supernet.export import adapter_tensors
from supernet.fingerprints import fingerprint
from supernet.merging import stored_shapes
from supernet.network import Supernet


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter:
    """What was trained for one task, and on which backbone.

    Args:
        subnet: The configuration of each adapted layer.
        tensors: Active support tensors and head, as `supernet.export.adapter_tensors` names them.
        backbone: Fingerprint of the backbone's weights, its head left out.
    """

    subnet: SubnetConfig
    tensors: Mapping[str, Tensor]
    backbone: str

    @classmethod
    def load(cls, directory: Path | str) -> Adapter:
        """Read adapter.safetensors and subnet.json of an export.

        Raises:
            CheckpointError: A file is missing or damaged.
        """
        try:
            text = (Path(directory) / "subnet.json").read_text(encoding="utf-8")
            subnet = SubnetConfig.from_json(text)
            backbone = json.loads(text).get("fingerprints", {}).get("backbone")
            tensors = load((Path(directory) / "adapter.safetensors").read_bytes())
        except (OSError, ValueError, AttributeError, SafetensorError) as error:
            raise CheckpointError(
                f"{str(directory)!r} holds no adapter, or a damaged one: {error}"
            ) from error
        if not isinstance(backbone, str):
            raise CheckpointError(
                f"{str(Path(directory) / 'subnet.json')!r} does not say on which backbone the "
                "adapter was trained: it has no fingerprints.backbone; export the trial once more"
            )
        return cls(subnet=subnet, tensors=tensors, backbone=backbone)

    @classmethod
    def of(cls, supernet: Supernet, subnet: SubnetConfig) -> Adapter:
        """A subnet of a trained supernet, copied.

        Raises:
            InvalidConfigError: `subnet` does not belong to the supernet's space.
        """
        supernet.space.validate(subnet)
        trained = supernet.trainable_state()
        state = supernet.backbone.state_dict()
        return cls(
            subnet=subnet,
            tensors=adapter_tensors(supernet, subnet),
            backbone=fingerprint({name: t for name, t in state.items() if name not in trained}),
        )

    def check(
        self, what: str, backbone: str, linears: Mapping[str, Tensor], head: Mapping[str, Tensor]
    ) -> None:
        """Raise unless this adapter fits a backbone.

        Args:
            what: This adapter in messages.
            backbone: The backbone's fingerprint.
            linears: Weights and biases of its linear layers, by name.
            head: Those of its classifier head; the adapter may have another number of classes.

        Raises:
            CheckpointError: It was trained on another backbone, or its tensors are damaged, or not
                those of its configuration.
            BackboneError: It adapts layers that the backbone does not have.
        """
        if self.backbone != backbone:
            raise CheckpointError(
                f"{what} was trained on another backbone: its fingerprint is "
                f"{self.backbone[:12]}…, that of the backbone here {backbone[:12]}…; "
                "give the weights with which the supernet was trained"
            )
        expected: dict[str, tuple[int, ...]] = {}
        for layer, config in self.subnet.layers.items():
            weight = linears.get(f"{layer}.weight")
            if weight is None:
                raise BackboneError(
                    f"{what} adapts {layer!r}, which is no linear layer of the backbone"
                )
            if config.D != "none" and f"{layer}.bias" not in linears:
                raise CheckpointError(f"{what} has D {config.D!r} in {layer!r}, which has no bias")
            shapes = stored_shapes(config, *weight.shape)
            expected |= {f"{layer}.{key}": shape for key, shape in shapes.items()}
        found = {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}
        counts = [shape[0] for key, shape in found.items() if key in head and shape]
        for key, own in head.items():
            expected[key] = (max(counts, default=len(own)), *own.shape[1:])
        check_shapes(what, found, expected)
        for key, tensor in self.tensors.items():
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise CheckpointError(
                    f"{what} is damaged: {key!r} has values that are no finite floats"
                )
