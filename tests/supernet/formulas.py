"""GLoRA's two formulas once more, written from the paper and independent of the package."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def rebuilt(
    weight: Tensor, bias: Tensor | None, tensors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """W0 + W0 * A + B and b0 + b0 * D + E + W0 C, from the tensors and their names alone."""
    o, i = weight.shape
    zero = torch.zeros((), dtype=weight.dtype)
    columns = {"A": (o, 1), "B": (o, 1), "C": (i, 1), "D": (o,), "E": (o,)}
    dense = {}
    for support, column in columns.items():
        if f"{support}_down" in tensors:
            dense[support] = tensors[f"{support}_down"] @ tensors[f"{support}_up"]
        else:
            value = tensors.get(support, zero)
            dense[support] = value.reshape(column) if value.ndim else value
    b0 = torch.zeros(o, dtype=weight.dtype) if bias is None else bias
    carried = (weight @ dense["C"]).squeeze(1) if dense["C"].ndim else zero
    return (
        weight + weight * dense["A"] + dense["B"],
        b0 + b0 * dense["D"] + dense["E"] + carried,
    )
