"""The change that a layer's support tensors make, with each of its outputs multiplied by a factor.

    y = x W0^T + b0 + z * (x (W0 * A + B)^T + b0 * D + E + W0 C)         (z (o), * elementwise)

The factors go into the support tensors, so the layer costs what it costs without them. Legend: `i`
in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from supernet.adapted_linear import Choice, Form


def scaled_change(choices: Sequence[Choice], weight: Tensor, factors: Tensor) -> list[Choice]:
    """Choices of A to E whose change is that of `choices` times `factors`.

    Args:
        choices: Of A, B, C, D and E.
        weight: W0 (o, i).
        factors: z (o).
    """
    a, b, c, d, e = choices
    column = factors[:, None]  # (o, 1)
    shift = None  # E + W0 C, (o)
    if c.form != "none":
        value = c.value()
        shift = (weight @ (value[0] @ value[1] if len(value) == 2 else value[0])).squeeze(1)
    if e.form != "none":
        added = e.value()[0].expand(len(weight))
        shift = added if shift is None else shift + added
    return [
        _scaled(a, column),
        _scaled(b, column),
        Choice(),
        _scaled(d, factors),
        Choice() if shift is None else Choice("vector", 0, (shift * factors,)),
    ]


def _scaled(choice: Choice, factors: Tensor) -> Choice:
    """A, B or D, with its rows times `factors`: (o, 1) for A and B, (o) for D."""
    if choice.form == "none":
        return choice
    first, *others = choice.value()
    form: Form = "low-rank" if others else "vector"
    return Choice(form, choice.rank, (first * factors, *others))
