"""The adapted linear layer: a frozen `nn.Linear` with the GLoRA support tensors of all its choices.

    W = W0 + W0 * A + B            b = b0 + b0 * D + E + W0 C            (* elementwise, broadcast)

(GLoRA, Chavan et al. 2023, arXiv 2306.07967, equation 5.) The dense forms: A and B are (o, i) as
`down[:, :r] @ up[:r]`, (o, 1) as `vector`, a scalar as `constant`; C is (i, 1); D and E are (o) or
a scalar. Legend: `b` batch, `n` tokens, `i` in_features, `o` out_features, `r` rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import InvalidConfigError, LayerConfig, rank_of
from supernet.adapted_linear import Choice, Form, adapted_linear
from supernet.merging import dense, merged_bias, merged_weight
from supernet.noise import scaled_change

Storage = Literal["entangled", "separate"]
"""Whether the choices of a support tensor share their parameters, or each has its own."""

_STORED: Final[dict[str, dict[tuple[str, str], str]]] = {
    # (support, token) -> the parameter that holds it where every choice has its own tensor
    "separate": {
        ("A", "vector"): "A_vector",
        ("A", "constant"): "A_constant",
        ("B", "vector"): "B_vector",
        ("B", "constant"): "B_constant",
        ("C", "vector"): "C_vector",
        ("D", "constant"): "D_constant",
        ("E", "constant"): "E_constant",
    },
    "entangled": {},
}


class GLoRALinear(nn.Module):
    """A frozen linear layer with trainable support tensors, of which `config` says which are
    active.

    Ranks nest: `lora_2` is the first two columns of the stored `down` and the first two rows of
    `up`. `down` and all else starts at zero, `up` at Xavier-uniform, so an untrained layer is its
    base, bit for bit. A support tensor that is `none` computes nothing.

    Args:
        base: The layer to adapt. Its weight and bias are shared, not copied, and frozen.
        ranks: The largest rank stored for A, B and C: one number for all, or a mapping. 0 stores
            what `vector` and `constant` need.
        storage: `entangled` (the published method): `vector` is column 0 of `down` and `constant`
            its entry [0, 0] (for D and E, the vector's entry 0). `separate`: each choice has its
            own tensor.
        generator: On the CPU, of the initial `up`; PyTorch's default one if not given.

    Raises:
        InvalidConfigError: A negative or missing rank, or an unknown storage.
    """

    def __init__(
        self,
        base: nn.Linear,
        ranks: Mapping[str, int] | int,
        storage: Storage = "entangled",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if storage not in _STORED:
            raise InvalidConfigError(f"storage must be 'entangled' or 'separate'; got {storage!r}")
        self.in_features, self.out_features = base.in_features, base.out_features
        self.storage = storage
        self.ranks = dict.fromkeys("ABC", ranks) if isinstance(ranks, int) else dict(ranks)
        if self.ranks.keys() != {"A", "B", "C"} or min(self.ranks.values()) < 0:
            raise InvalidConfigError(f"ranks must give A, B and C 0 or more; got {self.ranks}")
        self.weight = base.weight.requires_grad_(False)
        self.bias = None if base.bias is None else base.bias.requires_grad_(False)
        self._config: LayerConfig | None = None
        self.noise = 0.0
        """Standard deviation of a factor around 1 by which, in training, each output of the change
        is multiplied; one draw a forward from PyTorch's default generator."""
        self.B_down: nn.Parameter
        self.B_up: nn.Parameter

        o, i = base.out_features, base.in_features
        shapes: dict[str, tuple[int, ...]] = {}
        for support in ("A", "B"):
            r = max(self.ranks[support], 1)
            shapes |= {f"{support}_down": (o, r), f"{support}_up": (r, i)}
        r = max(self.ranks["C"], 1)
        shapes |= {"C_down": (i, r), "C_up": (r, 1), "D": (o,), "E": (o,)}
        if storage == "separate":
            shapes |= {"A_vector": (o, 1), "A_constant": (), "B_vector": (o, 1), "B_constant": ()}
            shapes |= {"C_vector": (i, 1), "D_constant": (), "E_constant": ()}
        self.adapter_names = tuple(shapes)
        """Names of the trainable parameters: everything but the frozen weight and bias."""
        for name, shape in shapes.items():
            value = torch.zeros(shape)
            if name.endswith("_up"):
                nn.init.xavier_uniform_(value, generator=generator)
            value = value.to(self.weight)
            self.register_parameter(name, nn.Parameter(value))

    @property
    def config(self) -> LayerConfig | None:
        """The active choice of the five support tensors; None runs the frozen layer alone."""
        return self._config

    @config.setter
    def config(self, config: LayerConfig | None) -> None:
        if config is not None:
            self._check(config)
        self._config = config

    def _check(self, config: LayerConfig) -> None:
        if self.bias is None and config.D != "none":
            raise InvalidConfigError(
                f"the layer has no bias, so D must be 'none'; got {config.D!r}"
            )
        for support, stored in self.ranks.items():
            if rank_of(getattr(config, support)) > stored:
                raise InvalidConfigError(
                    f"{support} is {getattr(config, support)!r}, but the layer stores rank {stored}"
                )

    def forward(self, x: Tensor) -> Tensor:
        """(..., i) -> (..., o), with the support tensors of `config`; nothing is stored merged."""
        config = self._config
        if config is None:
            return F.linear(x, self.weight, self.bias)
        choices = [self._choice(name, token) for name, token in config.items()]
        if self.noise and self.training:
            factors = 1 + self.noise * torch.randn(
                self.out_features, device=self.weight.device, dtype=self.weight.dtype
            )
            choices = scaled_change(choices, self.weight, factors)
        return adapted_linear(x, self.weight, self.bias, choices)

    def _choice(self, name: str, token: str) -> Choice:
        """A token of one support tensor with the parameters that hold it."""
        if token == "none":
            return Choice()
        if r := rank_of(token):
            return Choice("low-rank", r, (self._stored(f"{name}_down"), self._stored(f"{name}_up")))
        form: Form = "vector" if token == "vector" else "constant"
        own = _STORED[self.storage].get((name, token))
        return Choice(form, 0, (self._stored(own or (name if name in "DE" else f"{name}_down")),))

    def support(self, name: str, token: str, *, dtype: torch.dtype | None = None) -> Tensor:
        """One support tensor in its dense, broadcastable form (module docstring).

        Args:
            name: A to E.
            token: Any choice but `none`.
            dtype: In which a product is computed; the parameters' own if not given.
        """
        return dense(self._choice(name, token).value(), dtype)

    def _stored(self, name: str) -> nn.Parameter:
        parameter = self._parameters[name]  # nn.Module's own lookup takes as long as an operation
        assert isinstance(parameter, nn.Parameter)
        return parameter

    def active_parameters(self, config: LayerConfig) -> list[nn.Parameter]:
        """The parameters that `config` uses, in part or whole: those that it gives a gradient."""
        self._check(config)
        choices = [self._choice(name, token) for name, token in config.items()]
        return [p for choice in choices for p in choice.stored if isinstance(p, nn.Parameter)]

    def active_tensors(self, config: LayerConfig) -> dict[str, Tensor]:
        """What `config` uses, sliced to its ranks: parameter name to tensor, without gradient.

        A vector of shape (o) or (i) and a scalar are stored under the support tensor's own name.
        """
        self._check(config)
        tensors: dict[str, Tensor] = {}
        for name, token in config.items():
            if r := rank_of(token):
                tensors[f"{name}_down"] = self._stored(f"{name}_down")[:, :r]
                tensors[f"{name}_up"] = self._stored(f"{name}_up")[:r]
            elif token != "none":
                value = self.support(name, token)
                tensors[name] = value.flatten() if token == "vector" else value
        return {key: tensor.detach().clone() for key, tensor in tensors.items()}

    @torch.no_grad()
    def merged_tensors(
        self,
        config: LayerConfig | None,
        *,
        dtype: torch.dtype = torch.float64,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The weight (o, i) and bias (o) of the plain layer, computed in `dtype`, in the base's
        dtype.

        The bias is None where neither the base nor `config` has one. Nothing of this layer is
        changed.

        Args:
            config: None gives the base's own tensors, not copies.
            dtype: In which everything is added up.
            out: Memory (o, i) for the weight, which is used, and then returned, if its dtype is
                `dtype` and the base's.
        """
        if config is None:
            return self.weight, self.bias
        self._check(config)
        final = self.weight.dtype
        weight, b0 = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        if out is not None and not out.dtype == dtype == final:
            out = None
        a, b, c, d, e = (self._choice(name, token).value() for name, token in config.items())
        merged = merged_weight(weight, a, b, out=out)
        bias = merged_bias(weight, b0, c, d, e)
        return merged.to(final), None if bias is None else bias.to(final)

    def merged(self, *, dtype: torch.dtype = torch.float64) -> nn.Linear:
        """A new plain `nn.Linear` that computes what this layer computes; this layer is unchanged.

        Args:
            dtype: float64 or float32, in which weights are added up before the cast to the base's
                dtype.
        """
        weight, bias = self.merged_tensors(self._config, dtype=dtype)
        linear = nn.Linear(
            self.in_features,
            self.out_features,
            bias=bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
        return linear

    def extra_repr(self) -> str:
        """As `nn.Linear` prints itself, with what is stored and active."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, ranks={self.ranks}, storage={self.storage}, "
            f"config={self._config}"
        )
