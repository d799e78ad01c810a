"""The average of the merged weights of several subnets, which is one plain network.

    mean W = W0 + W0 * mean(A) + mean(B)
    mean b = b0 + b0 * mean(D) + mean(E) + W0 mean(C)         (* elementwise, broadcast)

A and B: ranks nest, so the mean of low-rank choices is (down * s) @ up, where s_j is the share of
the subnets that use column j. The mean v of vectors and constants is one more column of `down`,
with a row of ones in `up`. C, D, E: the mean is a vector; a product of C is a vector too. What all
subnets leave at `none` stays so, and constants alone stay a constant. So the average is itself a
configuration of GLoRA, with an adapter like any other.

Legend: `i` in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from search_spaces import SUPPORTS, LayerConfig, SubnetConfig, rank_of
from supernet.adapted_linear import Choice, Form, adapted_linear
from supernet.export import Exportable, logit_difference
from supernet.layer import GLoRALinear
from supernet.merging import stored_values
from supernet.network import Supernet


def average_export(supernet: Supernet, subnets: Sequence[SubnetConfig]) -> Exportable:
    """The average of the merged weights of subnets of a trained supernet.

    Its `origin` is the configuration of the adapter, and the digest and the weight of each subnet.

    Args:
        supernet: Trained.
        subnets: One or more; one that is there twice counts twice.

    Raises:
        InvalidConfigError: There are none, or one does not belong to the supernet's space.
    """
    network = supernet.merge_average(subnets)
    layers: dict[str, LayerConfig] = {}
    tensors: dict[str, Tensor] = {}
    for name, layer in supernet.layers.items():
        layers[name], own = averaged_tensors(layer, [subnet.layers[name] for subnet in subnets])
        tensors |= {f"{name}.{key}": tensor for key, tensor in own.items()}
    return Exportable(
        network=network,
        adapter={
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in {**tensors, **supernet.head_state()}.items()
        },
        origin={
            "layers": {name: dict(config.items()) for name, config in layers.items()},
            "average_of": [
                {"digest": subnet.digest, "weight": 1 / len(subnets)} for subnet in subnets
            ],
        },
        logit_difference=lambda split: logit_difference(
            _unmerged(supernet, layers, tensors), network, split
        ),
    )


@torch.no_grad()
def averaged_tensors(
    layer: GLoRALinear, configs: Sequence[LayerConfig]
) -> tuple[LayerConfig, dict[str, Tensor]]:
    """The mean of a layer's support tensors: its configuration, and the tensors as
    `GLoRALinear.active_tensors` names and shapes them.

    Args:
        layer: Of a supernet.
        configs: Of this layer, one or more.
    """
    tokens: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for support in SUPPORTS:
        tokens[support], parts = _mean(layer, support, [getattr(c, support) for c in configs])
        tensors |= {f"{support}{key}": part.to(layer.weight.dtype) for key, part in parts.items()}
    return LayerConfig(**tokens), tensors


def _mean(layer: GLoRALinear, support: str, tokens: Sequence[str]) -> tuple[str, dict[str, Tensor]]:
    """The mean of one support tensor over subnets: its token, and the float64 tensors `_down` and
    `_up`, or one whose name adds nothing to the support's.
    """
    ranks = [rank_of(token) for token in tokens] if support in "AB" else []
    rank = max(ranks, default=0)
    column: Tensor | None = None  # (o, 1), (i, 1), (o) or a scalar
    for token, count in Counter(tokens).items():
        if token == "none" or (support in "AB" and rank_of(token)):
            continue
        term = layer.support(support, token, dtype=torch.float64) * (count / len(tokens))
        column = term if column is None else column + term
    if rank:
        stored = layer.active_tensors(LayerConfig(**{support: f"lora_{rank}"}))
        down, up = (stored[f"{support}_{part}"].double() for part in ("down", "up"))
        down *= down.new_tensor([sum(r > j for r in ranks) / len(tokens) for j in range(rank)])
        if column is not None:
            down = torch.cat([down, column.expand(len(down), 1)], 1)
            up = torch.cat([up, up.new_ones(1, up.shape[1])])
        return f"lora_{len(up)}", {"_down": down, "_up": up}
    if column is None:
        return "none", {}
    return ("vector", {"": column.flatten()}) if column.ndim else ("constant", {"": column})


class _UnmergedLinear(nn.Module):
    """A frozen linear layer and the averaged support tensors beside it."""

    def __init__(self, base: GLoRALinear, choices: Sequence[Choice]) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.choices = choices

    def forward(self, x: Tensor) -> Tensor:
        return adapted_linear(x, self.weight, self.bias, self.choices)


def _unmerged(
    supernet: Supernet, layers: Mapping[str, LayerConfig], tensors: Mapping[str, Tensor]
) -> nn.Module:
    """The backbone with the average's adapter, not merged: with what the merge is compared."""
    model = supernet.plain()
    for name, config in layers.items():
        values = stored_values(config, tensors, prefix=f"{name}.")
        choices = [
            Choice(_form(token), rank_of(token), value)
            for token, value in zip(config.tokens, values, strict=True)
        ]
        model.set_submodule(name, _UnmergedLinear(supernet.layers[name], choices))
    return model


def _form(token: str) -> Form:
    if rank_of(token):
        return "low-rank"
    if token == "vector":
        return "vector"
    return "constant" if token == "constant" else "none"
