"""Support tensors as values: the two formulas of the plain layer, and how a file names them.

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C            (* elementwise, broadcast)

A value is (down, up), or (vector or scalar,), or () for `none`. All is added up in the dtype of the
weight that is given. Legend: `i` in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from search_spaces import LayerConfig, rank_of
from supernet.adapted_linear import Value


def dense(value: Value, dtype: torch.dtype | None = None) -> Tensor:
    """The broadcastable form of a value that is not `none`.

    Args:
        value: A support tensor.
        dtype: In which a product is computed; the value's own if not given.
    """
    parts = tuple(tensor.to(dtype) for tensor in value)
    return parts[0] @ parts[1] if len(parts) == 2 else parts[0]


def merged_weight(weight: Tensor, a: Value, b: Value, *, out: Tensor | None = None) -> Tensor:
    """The weight W (o, i); `weight` itself, not a copy, where there is neither A nor B.

    Args:
        weight: W0 (o, i); is not changed.
        a: (o, r) and (r, i), or (o, 1), or a scalar.
        b: As A.
        out: Memory (o, i) of the weight's dtype, which is used, and then returned.
    """
    # Each product and each sum is rounded, as if written without `out`: addcmul and addmm would
    # save a pass over the weight, but round differently on different machines.
    merged = weight
    if a:
        merged = torch.mul(weight, dense(a, weight.dtype), out=out)
        merged += weight
    if b:
        into = out if merged is weight else merged
        merged = torch.add(merged, dense(b, weight.dtype), out=into)
    return merged


def merged_bias(weight: Tensor, bias: Tensor | None, c: Value, d: Value, e: Value) -> Tensor | None:
    """The bias b (o); `bias` itself where there is nothing to add, so None if the layer has none.

    Args:
        weight: W0 (o, i).
        bias: b0 (o) of the weight's dtype, or None; D counts for nothing then.
        c: (i, r) and (r, 1), or (i, 1).
        d: (o), or a scalar.
        e: As D.
    """
    dtype = weight.dtype
    terms = []
    if bias is not None and d:
        terms.append(bias * dense(d, dtype))
    if e:
        terms.append(dense(e, dtype).expand(len(weight)))
    if c:
        terms.append((weight @ dense(c, dtype)).squeeze(1))
    for term in terms:
        bias = term if bias is None else bias + term
    return bias


# Support tensors in a file: `A_down` and `A_up`; or `A`, whose vector has one dimension


def stored_shapes(config: LayerConfig, o: int, i: int) -> dict[str, tuple[int, ...]]:
    """Name to shape of what `GLoRALinear.active_tensors` gives for a layer (o, i)."""
    dense_shapes = {"A": (o, i), "B": (o, i), "C": (i, 1), "D": (o, 1), "E": (o, 1)}
    shapes: dict[str, tuple[int, ...]] = {}
    for support, token in config.items():
        rows, columns = dense_shapes[support]
        if r := rank_of(token):
            shapes |= {f"{support}_down": (rows, r), f"{support}_up": (r, columns)}
        elif token != "none":
            shapes[support] = (rows,) if token == "vector" else ()
    return shapes


def stored_values(
    config: LayerConfig, tensors: Mapping[str, Tensor], *, prefix: str = ""
) -> tuple[Value, ...]:
    """The values of A to E, as views of `tensors`.

    Args:
        config: Of the layer.
        tensors: Named, after `prefix`, and shaped as in `stored_shapes`.
        prefix: The layer's name and a dot, where `tensors` are those of several layers.
    """
    values: list[Value] = []
    for support, token in config.items():
        name = f"{prefix}{support}"
        if rank_of(token):
            values.append((tensors[f"{name}_down"], tensors[f"{name}_up"]))
        elif token == "none":
            values.append(())
        elif token == "vector" and support in "ABC":
            values.append((tensors[name][:, None],))
        else:
            values.append((tensors[name],))
    return tuple(values)
