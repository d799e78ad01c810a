"""Tokens: the choices of one support tensor, which of them are legal, and what each costs.

GLoRA (Chavan et al. 2023, arXiv 2306.07967) adapts a frozen linear layer by five support tensors:

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C

A token says which form one support tensor takes: `lora_<r>` (a product of rank r), `vector`,
`constant` (a scalar) or `none`. Legend: `o` out_features, `i` in_features, `r` rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from search_spaces.errors import InvalidConfigError

SUPPORTS: Final = ("A", "B", "C", "D", "E")
"""The support tensors of a layer, in the order in which configurations name them."""

_LORA: Final = "lora_<r>"
_FORMS: Final = {
    "A": (_LORA, "vector", "constant", "none"),
    "B": (_LORA, "vector", "constant", "none"),
    "C": (_LORA, "vector", "none"),
    "D": ("vector", "constant", "none"),
    "E": ("vector", "constant", "none"),
}
_LORA_TOKEN: Final = re.compile(r"lora_([1-9][0-9]*)")


@dataclass(frozen=True)
class LayerSpec:
    """The shape of one adapted linear layer; everything a count of parameters needs.

    Args:
        name: The module's dotted name in the backbone, such as `blocks.3.attn.qkv`.
        in_features: i, at least 1.
        out_features: o, at least 1.
        bias: Whether the frozen layer has a bias b0. Without one, D must be `none`.
        can_add_bias: Whether the architecture can hold a bias in this layer after the merge. Where
            it cannot, C and E must be `none` too. Of no meaning for a layer that has a bias.

    Raises:
        InvalidConfigError: A dimension below 1, or an empty name.
    """

    name: str
    in_features: int
    out_features: int
    bias: bool
    can_add_bias: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidConfigError("a layer needs a name; got an empty string")
        if self.in_features < 1 or self.out_features < 1:
            raise InvalidConfigError(
                f"layer {self.name!r}: in_features and out_features must be at least 1; "
                f"got {self.in_features} and {self.out_features}"
            )

    def allows(self, support: str, token: str) -> bool:
        """Whether this layer can take a legal `token`, given what bias it has or may get."""
        if self.bias or token == "none":
            return True
        return support != "D" and (support in "AB" or self.can_add_bias)


def rank_of(token: str) -> int:
    """The rank r of `lora_<r>`; 0 for every other token."""
    match = _LORA_TOKEN.fullmatch(token)
    return int(match.group(1)) if match else 0


def check_token(support: str, token: object) -> None:
    """Raise InvalidConfigError unless `token` is a legal form of the support tensor `support`."""
    if support not in _FORMS:
        raise InvalidConfigError(
            f"unknown support tensor {support!r}; accepted: {', '.join(SUPPORTS)}"
        )
    if isinstance(token, str):
        form = _LORA if _LORA_TOKEN.fullmatch(token) else token
        if form in _FORMS[support] and token != _LORA:
            return
    raise InvalidConfigError(
        f"{support} cannot be {token!r}; accepted: {', '.join(_FORMS[support])} (r = 1, 2, ...)"
    )


def token_params(support: str, token: str, layer: LayerSpec) -> int:
    """The number of trainable scalars of one support tensor of one layer.

    `lora_r` costs r(o + i) for A and B and r(i + 1) for C; `vector` costs i for C and o for the
    others; `constant` 1; `none` 0 (GLoRA, table 1, counted as the published code stores them).
    """
    if token == "none":
        return 0
    if token == "constant":
        return 1
    if token == "vector":
        return layer.in_features if support == "C" else layer.out_features
    columns = 1 if support == "C" else layer.out_features
    return rank_of(token) * (layer.in_features + columns)
