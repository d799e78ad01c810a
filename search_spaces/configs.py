"""What is chosen: the five tokens of one layer, and the layers of one subnet.

Three codecs, one for each edge: flat parameters (Optuna: `{"blocks.0.attn.qkv.A": "lora_4", ...}`),
JSON (files), and a digest (identity). Two subnets are equal when they choose the same, in whatever
order their layers were given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import itemgetter
from types import MappingProxyType

from search_spaces.errors import InvalidConfigError
from search_spaces.tokens import SUPPORTS, LayerSpec, check_token, token_params


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The tokens of the five support tensors of one layer.

    Raises:
        InvalidConfigError: A token that its support tensor cannot take.
    """

    A: str = "none"
    B: str = "none"
    C: str = "none"
    D: str = "none"
    E: str = "none"

    def __post_init__(self) -> None:
        for support, token in self.items():
            check_token(support, token)

    def __reduce__(self) -> tuple[Callable[..., LayerConfig], tuple[str, ...]]:
        return layer_config, self.tokens  # without what is cached, and shared again when loaded

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The tokens in the order A to E."""
        return self.A, self.B, self.C, self.D, self.E

    def items(self) -> Iterator[tuple[str, str]]:
        """(support, token) pairs in the order A to E."""
        return zip(SUPPORTS, self.tokens, strict=True)

    @cached_property
    def canonical_json(self) -> str:
        """A JSON object from support to token, in the order A to E, no white space."""
        return json.dumps(dict(self.items()), separators=(",", ":"))

    def n_params(self, layer: LayerSpec) -> int:
        """Trainable scalars of this configuration on `layer`."""
        return sum(token_params(support, token, layer) for support, token in self.items())


@dataclass(frozen=True, eq=False)
class SubnetConfig:
    """One subnet: a configuration for each adapted layer, by the layer's module name.

    Args:
        layers: Layer name to LayerConfig, at least one. The mapping is copied.

    Raises:
        InvalidConfigError: No layers, or a value that is no LayerConfig.
    """

    layers: Mapping[str, LayerConfig]

    def __post_init__(self) -> None:
        if not self.layers:
            raise InvalidConfigError("a subnet needs at least one layer; got none")
        for name, config in self.layers.items():
            if not isinstance(config, LayerConfig):
                raise InvalidConfigError(f"layer {name!r}: expected a LayerConfig; got {config!r}")
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubnetConfig) and self.layers == other.layers

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[type[SubnetConfig], tuple[dict[str, LayerConfig]]]:
        return SubnetConfig, (dict(self.layers),)  # a MappingProxyType does not pickle

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the canonical JSON: the identity of the choice, not of its order."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_params(self) -> dict[str, str]:
        """Flat parameters, one a gene, named as in Optuna: `<layer>.<support>` to token."""
        return {
            f"{name}.{support}": token
            for name, config in self.layers.items()
            for support, token in config.items()
        }

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> SubnetConfig:
        """The inverse of `to_params`.

        Raises:
            InvalidConfigError: A key that is no gene, an illegal token, or a layer of which not all
                five support tensors are given.
        """
        layers: dict[str, dict[str, str]] = {}
        for gene, token in params.items():
            name, dot, support = gene.rpartition(".")
            if not dot or not name or support not in SUPPORTS:
                raise InvalidConfigError(
                    f"{gene!r} is not a gene; expected <layer>.<support> with a support of "
                    f"{', '.join(SUPPORTS)}"
                )
            layers.setdefault(name, {})[support] = token
        for name, tokens in layers.items():
            if missing := [s for s in SUPPORTS if s not in tokens]:
                raise InvalidConfigError(f"layer {name!r} lacks {', '.join(missing)}")
        return cls({name: LayerConfig(**tokens) for name, tokens in layers.items()})

    def to_json(self) -> str:
        """Canonical JSON: layers sorted by name, no white space."""
        # A search meets few layer configurations over and over: their texts are put together.
        members = [
            f"{_quoted(name)}:{config.canonical_json}"
            for name, config in sorted(self.layers.items(), key=itemgetter(0))
        ]
        return f'{{"layers":{{{",".join(members)}}}}}'

    @classmethod
    def from_json(cls, text: str) -> SubnetConfig:
        """The inverse of `to_json`; accepts any order and white space.

        Raises:
            InvalidConfigError: Not JSON, or JSON that is not a subnet.
        """
        try:
            layers = json.loads(text)["layers"]
            return cls({name: LayerConfig(**tokens) for name, tokens in layers.items()})
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InvalidConfigError(
                f"not a subnet: {error}; "
                'expected {"layers": {"<name>": {"A": "<token>", ...}}}'
            ) from error


@lru_cache(maxsize=4096)
def layer_config(*tokens: str) -> LayerConfig:
    """The configuration of five tokens in the order A to E, made and checked once.

    Raises:
        InvalidConfigError: A token that its support tensor cannot take.
    """
    return LayerConfig(**dict(zip(SUPPORTS, tokens, strict=True)))


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return json.dumps(name)
