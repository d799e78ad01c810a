"""The search space: which layers are adapted, and what may be chosen for each support tensor."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from typing import NoReturn

from search_spaces.configs import SubnetConfig, layer_config
from search_spaces.draws import NO_LIMITS, ParamLimits, check_feasible, draw
from search_spaces.errors import InvalidConfigError
from search_spaces.tokens import SUPPORTS, LayerSpec, check_token, rank_of, token_params

Genome = tuple[str, ...]
"""The tokens of a subnet in the order of `SearchSpace.genes`."""


@dataclass(frozen=True)
class Gene:
    """One decision: the support tensor of a layer, its choices, and what each choice costs.

    Args:
        name: `<layer>.<support>`, also the Optuna parameter's name.
        choices: The tokens allowed here.
        costs: Trainable scalars of each choice, aligned with `choices`.
    """

    name: str
    choices: tuple[str, ...]
    costs: tuple[int, ...]

    @property
    def layer(self) -> str:
        """The layer's module name."""
        return self.name.rpartition(".")[0]

    @property
    def support(self) -> str:
        """The support tensor: A, B, C, D or E."""
        return self.name.rpartition(".")[2]


class _LayerPrices(dict[tuple[str, ...], int]):
    """Trainable scalars of a layer's configurations, by their five tokens; reckoned once for each,
    since a search asks for the same ones again and again. KeyError: a token not offered.
    """

    def __init__(self, genes: Sequence[Mapping[str, int]]) -> None:
        self._genes = genes

    def __missing__(self, tokens: tuple[str, ...]) -> int:
        price = sum(costs[token] for costs, token in zip(self._genes, tokens, strict=True))
        self[tokens] = price
        return price


class SearchSpace:
    """All subnets that choose, for every layer, one token for each support tensor.

    Args:
        layers: The adapted layers, in the order in which the backbone applies them.
        choices: Support tensor to its tokens, the same for every layer. A layer without bias keeps
            only `none` for D (and for C and E, where its architecture cannot hold a bias).

    Raises:
        InvalidConfigError: No layers, a name twice, a support tensor without choices, an illegal or
            repeated token, or a layer that is left with no choice.
    """

    def __init__(self, layers: Iterable[LayerSpec], choices: Mapping[str, Sequence[str]]) -> None:
        self.layers = tuple(layers)
        if not self.layers:
            raise InvalidConfigError("a search space needs at least one layer; got none")
        names = [layer.name for layer in self.layers]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InvalidConfigError(f"layers named more than once: {', '.join(sorted(repeated))}")
        self.choices = _checked_choices(choices)
        self.genes = tuple(
            _gene(layer, support, self.choices[support])
            for layer in self.layers
            for support in SUPPORTS
        )

    def __repr__(self) -> str:
        return (
            f"SearchSpace({len(self.layers)} layers, {len(self.genes)} genes, size {self.size:.3g})"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SearchSpace)
            and self.layers == other.layers
            and self.choices == other.choices
        )

    def __hash__(self) -> int:
        return hash((self.layers, tuple(self.choices.items())))

    @property
    def size(self) -> int:
        """The number of subnets."""
        return math.prod(len(gene.choices) for gene in self.genes)

    @property
    def ranks(self) -> dict[str, int]:
        """The largest rank offered for A, B and C; 0 where none is low-rank."""
        return {s: max(map(rank_of, self.choices[s])) for s in ("A", "B", "C")}

    @cached_property
    def costs(self) -> tuple[tuple[int, ...], ...]:
        """For each gene the trainable scalars of each choice."""
        return tuple(gene.costs for gene in self.genes)

    def check_limits(self, limits: ParamLimits) -> None:
        """Raise InfeasibleLimitError where no subnet can meet `limits`."""
        check_feasible(self.costs, limits)

    def sample(self, rng: random.Random, limits: ParamLimits = NO_LIMITS) -> SubnetConfig:
        """A subnet drawn uniformly from those within `limits`.

        Args:
            rng: The only source of randomness.
            limits: Limits on the trainable adapter scalars.

        Raises:
            InfeasibleLimitError: None, or almost none, is within the limits.
        """
        chosen = draw(self.costs, rng, limits)
        return self.decode(
            tuple(gene.choices[k] for gene, k in zip(self.genes, chosen, strict=True))
        )

    @cached_property
    def _prices(self) -> tuple[tuple[str, _LayerPrices], ...]:
        """For each layer its name, and what its configurations cost."""
        width = len(SUPPORTS)
        priced = [dict(zip(gene.choices, gene.costs, strict=True)) for gene in self.genes]
        return tuple(
            (layer.name, _LayerPrices(priced[k * width : (k + 1) * width]))
            for k, layer in enumerate(self.layers)
        )

    def validate(self, subnet: SubnetConfig) -> None:
        """Raise InvalidConfigError, naming every fault, unless `subnet` belongs to this space."""
        self._priced(subnet)

    def _priced(self, subnet: SubnetConfig) -> int:
        """The trainable scalars of `subnet`; validates it on the way, which is as quick."""
        if len(subnet.layers) != len(self.layers):
            self._refuse(subnet)
        try:
            return sum([prices[subnet.layers[name].tokens] for name, prices in self._prices])
        except KeyError:
            self._refuse(subnet)

    def _refuse(self, subnet: SubnetConfig) -> NoReturn:
        mine, theirs = {layer.name for layer in self.layers}, set(subnet.layers)
        faults = [f"layer {name!r} is missing" for name in sorted(mine - theirs)]
        faults += [f"layer {name!r} is not in this space" for name in sorted(theirs - mine)]
        params = subnet.to_params()
        for gene in self.genes:
            if gene.name in params and params[gene.name] not in gene.choices:
                faults.append(
                    f"{gene.name} is {params[gene.name]!r}; accepted: {', '.join(gene.choices)}"
                )
        raise InvalidConfigError("not a subnet of this search space: " + "; ".join(faults))

    def n_params(self, subnet: SubnetConfig) -> int:
        """Trainable adapter scalars of `subnet`, in closed form; without the head.

        Raises:
            InvalidConfigError: `subnet` does not belong to this space.
        """
        return self._priced(subnet)

    def min_subnet(self) -> SubnetConfig:
        """The subnet with the fewest trainable scalars (of equals, the choice listed first)."""
        return self.decode(tuple(g.choices[g.costs.index(min(g.costs))] for g in self.genes))

    def max_subnet(self) -> SubnetConfig:
        """The subnet with the most trainable scalars (of equals, the choice listed first)."""
        return self.decode(tuple(g.choices[g.costs.index(max(g.costs))] for g in self.genes))

    def encode(self, subnet: SubnetConfig) -> Genome:
        """The tokens of `subnet` in the order of `genes`."""
        self._priced(subnet)
        layers = subnet.layers
        return tuple(chain.from_iterable([layers[layer.name].tokens for layer in self.layers]))

    def decode(self, genome: Genome) -> SubnetConfig:
        """The inverse of `encode`.

        Raises:
            InvalidConfigError: Not one token a gene, or a token that its support tensor cannot
                take.
        """
        if len(genome) != len(self.genes):
            raise InvalidConfigError(
                f"a genome of this space has {len(self.genes)} tokens; got {len(genome)}"
            )
        width = len(SUPPORTS)
        return SubnetConfig(
            {
                layer.name: layer_config(*genome[k * width : (k + 1) * width])
                for k, layer in enumerate(self.layers)
            }
        )

    def to_json(self) -> str:
        """JSON of layers and choices, for the files that stand beside a supernet."""
        return json.dumps(
            {"layers": [asdict(layer) for layer in self.layers], "choices": self.choices}
        )

    @classmethod
    def from_json(cls, text: str) -> SearchSpace:
        """The inverse of `to_json`.

        Raises:
            InvalidConfigError: Not the JSON of a search space.
        """
        try:
            record = json.loads(text)
            return cls([LayerSpec(**layer) for layer in record["layers"]], record["choices"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidConfigError(f"not a search space: {error}") from error


def _checked_choices(choices: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    if unknown := set(choices) - set(SUPPORTS):
        raise InvalidConfigError(
            f"unknown support tensors {', '.join(sorted(map(repr, unknown)))}; "
            f"accepted: {', '.join(SUPPORTS)}"
        )
    checked = {}
    for support in SUPPORTS:
        tokens = tuple(choices.get(support, ()))
        if not tokens:
            raise InvalidConfigError(f"{support} has no choices; give at least one, such as 'none'")
        for token in tokens:
            check_token(support, token)
        if len(set(tokens)) < len(tokens):
            raise InvalidConfigError(f"{support} lists a choice twice: {', '.join(tokens)}")
        checked[support] = tokens
    return checked


def _gene(layer: LayerSpec, support: str, tokens: tuple[str, ...]) -> Gene:
    allowed = tuple(token for token in tokens if layer.allows(support, token))
    if not allowed:
        raise InvalidConfigError(
            f"layer {layer.name!r} has no bias, so {support} must be 'none'; "
            f"add 'none' to the choices of {support}, or leave the layer out"
        )
    costs = tuple(token_params(support, token, layer) for token in allowed)
    return Gene(f"{layer.name}.{support}", allowed, costs)
