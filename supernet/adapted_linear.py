"""A linear layer that GLoRA's five support tensors adapt, as one autograd function.

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C            y = x W^T + b

Training needs the gradients of x and of the few scalars that A to E are made of; W0 and b0 are
frozen. Plain autograd would make W0 * A and W0 * A + B dense (o, i) tensors with dense gradients.
That adds about half of the cost of the frozen network, and keeps these tensors and every x in
memory. Here

- W is merged in the forward pass and again in the backward pass, and never kept: next to a product
  with hundreds of tokens one pass over the weight is nothing.
- Only a low-rank A needs the dense gradient of W, dY^T x. All other gradients factor:
  vector A: column sums of dY * (x W0^T)          constant A: <dY W0, x>
  low-rank B: dY^T (x up^T) and (dY down)^T x     vector, constant B: dY^T (row sums of x)
  C, D, E: from the column sums of dY
- x is kept only where one of these needs it; and where x is the output of LayerNorm or GELU, what
  that operation keeps for its own gradient is shared, and x is computed from it again.

Legend: `n` tokens of the whole batch, `i` in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Form = Literal["low-rank", "vector", "constant", "none"]

Value = tuple[Tensor, ...]
"""A support tensor in use: (down, up), or (vector or scalar,), or () for none."""


class Choice(NamedTuple):
    """What is chosen for one support tensor, and the parameters of which it is a part.

    Args:
        form: Which of the four forms.
        rank: Of a low-rank form: columns of the stored `down` and rows of `up` that are used.
        stored: `down` and `up`; or one parameter, whose first column (or whole vector) is the
            vector and whose first entry the constant; or nothing for `none`.
    """

    form: Form = "none"
    rank: int = 0
    stored: tuple[Tensor, ...] = ()

    def value(self) -> Value:
        """The part that is used: (…, r) and (r, …); (o, 1), (i, 1) or (o); or a scalar."""
        if self.form == "none":
            return ()
        if self.form == "low-rank":
            down, up = self.stored
            whole = self.rank == len(up)
            return (down, up) if whole else (down[:, : self.rank], up[: self.rank])
        (tensor,) = self.stored
        if self.form == "vector":
            return (tensor[:, :1] if tensor.ndim == 2 else tensor,)
        return (tensor.view(-1)[0],)

    def as_stored(self, gradients: Value) -> Value:
        """The gradients of `value()` as gradients of what is stored: zero where it is not used."""
        if all(g.shape == t.shape for g, t in zip(gradients, self.stored, strict=True)):
            return gradients
        whole = tuple(torch.zeros_like(t) for t in self.stored)
        for mine, gradient in zip(self._replace(stored=whole).value(), gradients, strict=True):
            mine.copy_(gradient)
        return whole


def adapted_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, choices: Sequence[Choice]
) -> Tensor:
    """(..., i) -> (..., o).

    Under autocast the products with x and dY are computed in its type. W is merged in the type of
    the parameters and then rounded, as it is where a subnet is evaluated.

    Args:
        x: (..., i).
        weight: W0, (o, i), frozen.
        bias: b0, (o), frozen, or None; D must be `none` then.
        choices: Of A, B, C, D and E.
    """
    stored = [tensor for choice in choices for tensor in choice.stored]
    if not stored:
        return F.linear(x, weight, bias)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with _without_autocast(device):
        y: Tensor = _AdaptedLinear.apply(x, weight, bias, choices, dtype, *stored)
    return y


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        b0: Tensor | None,
        choices: Sequence[Choice],
        dtype: torch.dtype,
        *stored: Tensor,  # of all choices in turn: here for autograd to see them
    ) -> Tensor:
        a, b, c, d, e = values = [choice.value() for choice in choices]
        tokens = x.reshape(-1, x.shape[-1]).to(dtype)  # (n, i)
        y = tokens.new_empty((*x.shape[:-1], len(weight)))  # no view: callers may write to it
        flat_y = y.view(-1, len(weight))  # (n, o)
        bias = _bias(weight, b0, c, d, e)
        rounded_bias = None if bias is None else bias.to(dtype)
        frozen_y = row_sums = None
        if len(b) == 1:
            row_sums = tokens.sum(1, keepdim=True)  # (n, 1)
        if choices[0].form == "vector":
            # y = (1 + a) (x W0^T + b) - a b, which is the frozen layer, bit for bit, where a is 0.
            # In one pass and in the type of A: rounded to bf16 first, 1 + a would lose a.
            frozen_y = F.linear(tokens, weight.to(dtype), rounded_bias)  # (n, o)
            scale = a[0][:, 0]
            shift = scale.new_zeros(1) if bias is None else -scale * bias
            torch.addcmul(shift, frozen_y, 1 + scale, out=flat_y)
            if len(b) == 2:
                flat_y.addmm_(tokens @ b[1].to(dtype).T, b[0].to(dtype).T)
            elif row_sums is not None:
                flat_y.addcmul_(row_sums, b[0].to(dtype).flatten())
        else:
            merged = _merged_weight(weight, a, b).to(dtype)  # (o, i)
            if rounded_bias is None:
                torch.mm(tokens, merged.T, out=flat_y)
            else:
                torch.addmm(rounded_bias, tokens, merged.T, out=flat_y)

        kept: tuple[Tensor | None, ...] = ()
        ctx.remake = None
        if len(a) == 2 or len(b) == 2 or choices[0].form == "constant":
            ctx.remake, kept = _kept_for(x)
        ctx.save_for_backward(weight, b0, bias, frozen_y, row_sums, *stored, *kept)
        ctx.choices, ctx.values, ctx.n_stored = choices, values, len(stored)
        ctx.dtype, ctx.x = dtype, (x.dtype, x.shape)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        weight, b0, bias, frozen_y, row_sums, *others = ctx.saved_tensors
        choices, kept = ctx.choices, others[ctx.n_stored :]
        dtype, (x_dtype, x_shape) = ctx.dtype, ctx.x
        a, b, c, d, e = ctx.values
        with _without_autocast(dy.device.type):
            dy = dy.reshape(-1, dy.shape[-1])  # (n, o)
            tokens: Any = None
            if ctx.remake is not None:
                tokens = ctx.remake(*kept).reshape(-1, x_shape[-1]).to(dtype)  # (n, i)
            dx = dense = None
            da: Value = ()
            db: Value = ()

            # What needs products with dY of the size of the layer: W, where A is low-rank, and x.
            if len(a) == 2:
                dense = dy.T @ tokens  # (o, i)
            if choices[0].form == "constant":
                dx = dy @ weight.to(dtype)  # (n, i), as if there were neither A nor B
                da = (torch.dot(dx.flatten(), tokens.flatten()),)
                dx.mul_(1 + a[0])
                if len(b) == 2:
                    dx.addmm_(dy @ b[0].to(dtype), b[1].to(dtype))
                elif b:
                    dx.add_(dy @ b[0].to(dtype).expand(len(weight), 1))
            elif ctx.needs_input_grad[0]:
                dx = dy @ _merged_weight(weight, a, b).to(dtype)  # (n, i)

            if len(b) == 2 and dense is not None:
                db = dense @ b[1].to(dtype).T, b[0].to(dtype).T @ dense
            elif len(b) == 2:
                # (r, n) @ (n, o): several times faster on a CPU than the transposed product
                db_down = ((tokens @ b[1].to(dtype).T).T @ dy).T
                db = db_down, (dy @ b[0].to(dtype)).T @ tokens
            elif b:
                column = (row_sums.T @ dy).T  # (o, 1)
                db = (column.sum() if choices[1].form == "constant" else column,)

            dbias = None if bias is None else dy.sum(0, dtype=weight.dtype)  # (o)
            if dense is not None:
                dense = dense.to(weight.dtype).mul_(weight)
                da = dense @ a[1].T, a[0].T @ dense
            elif choices[0].form == "vector":
                scale = (dy * frozen_y).sum(0, dtype=weight.dtype)  # (o)
                da = ((scale if bias is None else scale - bias * dbias)[:, None],)

            gradients = [da, db, *_gradients_of_bias(weight, b0, dbias, c, d, e)]
        dx = None if dx is None else dx.to(x_dtype).reshape(x_shape)
        parts = (choice.as_stored(g) for choice, g in zip(choices, gradients, strict=True))
        return dx, None, None, None, None, *(tensor for part in parts for tensor in part)


def _bias(weight: Tensor, b0: Tensor | None, c: Value, d: Value, e: Value) -> Tensor | None:
    """b0 + b0 * D + E + W0 C, (o); None where there is nothing to add."""
    bias = b0
    if d and b0 is not None:
        bias = torch.addcmul(b0, b0, d[0])
    if e:
        bias = e[0].expand(len(weight)) if bias is None else bias + e[0]
    if c:
        column = c[0] @ c[1] if len(c) == 2 else c[0]  # (i, 1)
        carried = (weight @ column).squeeze(1)  # (o)
        bias = carried if bias is None else bias + carried
    return bias


def _gradients_of_bias(
    weight: Tensor, b0: Tensor | None, dbias: Any, c: Value, d: Value, e: Value
) -> tuple[Value, Value, Value]:
    """Of C, D and E, from that of the bias, (o)."""
    dc: Value = ()
    dd: Value = ()
    de: Value = ()
    if c:
        column = weight.T @ dbias[:, None]  # (i, 1)
        dc = (column @ c[1].T, c[0].T @ column) if len(c) == 2 else (column,)
    if d and b0 is not None:
        dd = (dbias * b0 if d[0].ndim else dbias.dot(b0),)
    if e:
        de = (dbias if e[0].ndim else dbias.sum(),)
    return dc, dd, de


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Every type is chosen here; the context itself costs as much as a small layer does."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _merged_weight(weight: Tensor, a: Value, b: Value) -> Tensor:
    """W0 + W0 * A + B, (o, i)."""
    merged = weight
    if len(a) == 2:
        dense = a[0] @ a[1]
        merged = torch.addcmul(weight, weight, dense, out=dense)
    elif a:
        merged = weight * (1 + a[0])
    if len(b) == 2:
        return torch.addmm(merged, *b)
    return merged + b[0] if b else merged


def _kept_for(x: Tensor) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...]]:
    """What to keep so that x can be made again, and how.

    The graph names the operation that made x and shows what it keeps for its gradient: to keep the
    same tensors costs no memory. After any other operation x itself is kept.
    """
    made_by: Any = x.grad_fn
    match type(made_by).__name__:
        case "GeluBackward0":
            approximate = made_by._saved_approximate
            return partial(F.gelu, approximate=approximate), (made_by._saved_self,)
        case "NativeLayerNormBackward0":
            names = ("input", "result1", "result2", "weight", "bias")
            return _normalised, tuple(getattr(made_by, f"_saved_{name}") for name in names)
    return _itself, (x,)


def _normalised(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """LayerNorm whose statistics are known: x (..., i); mean, rstd (..., 1); weight, bias (i)."""
    y = torch.addcmul(-mean * rstd, x, rstd)
    if weight is None:
        return y
    return y.mul_(weight) if bias is None else torch.addcmul(bias, y, weight)


def _itself(x: Tensor) -> Tensor:
    return x
