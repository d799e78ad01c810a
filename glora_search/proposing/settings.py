"""The settings of a search: the section [search] of a study file, as one record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from glora_search.study.objectives import BY_LOSS, Objectives
from glora_search.study.search_names import (
    OperatorSet,
    SamplerName,
    SearchMode,
    SurrogateName,
    WarmStart,
)
from search_spaces import NO_LIMITS, InvalidConfigError, ParamLimits, SearchSpace


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How subnets are proposed.

    The defaults are the published ones (GLoRA, arXiv 2306.07967), except for the fitness.
    Generation 0 is random; generations 1 to `generations` follow: 50 * 21 = 1,050 subnets.

    Args:
        sampler: `evolution` is this package's; `random`, `tpe` and `nsgaii` are Optuna's.
        operators: How the evolution makes children. `published`: uniform crossover, and mutation
            of each gene with `mutation_probability`. `local`: crossover at a block boundary, and
            mutation of one to three genes.
        mode: `generational`: a generation is made from the outcomes of all earlier generations, and
            waits for them. `steady-state`: a child is made as soon as a worker is free, from the
            outcomes that have arrived; no worker waits, and two runs of one seed differ. Only the
            evolution has it.
        objectives: What is optimised on the validation split: one objective, or two of which the
            second is not measured. For two, parents are the best in the sense of NSGA-II.
        population: Subnets in a generation.
        generations: Generations after the random one.
        parents: How many of the best outcomes of all earlier generations are parents.
        mutations: Children by mutation in a generation.
        crossovers: Children by crossover in a generation. The rest of the population is random.
        mutation_probability: The probability that a gene is redrawn; the published operators use
            it.
        limits: Limits on a subnet's trainable adapter scalars.
        surrogate: The model that chooses among `proposals` children of each place; `none` takes the
            first. `ridge`: ridge regression. `trees`: gradient boosting. Only a generational
            evolution has one.
        proposals: Children that are made for each place where there is a surrogate.
        diversity: In how many genes two parents differ at least; nearer outcomes than that are
            passed over for worse ones. Only a generational evolution has it.
        size_price: What the largest subnet that the limits allow costs, in the unit of the fitness;
            a smaller one costs its share of that. The price makes a fitness worse.
        warm_start: Where half of generation 0 comes from, see `glora_search.proposing.founders`;
            `none`: all of it is random.

    Raises:
        InvalidConfigError: Values are out of range; the message names all of them.
    """

    sampler: SamplerName = "evolution"
    operators: OperatorSet = "published"
    mode: SearchMode = "generational"
    objectives: Objectives = BY_LOSS
    population: int = 50
    generations: int = 20
    parents: int = 10
    mutations: int = 25
    crossovers: int = 25
    mutation_probability: float = 0.2
    limits: ParamLimits = NO_LIMITS
    surrogate: SurrogateName = "none"
    proposals: int = 10
    diversity: int = 0
    size_price: float = 0.0
    warm_start: WarmStart = "none"

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least {least}; got {value}"
            for name, value, least in (
                ("population", self.population, 1),
                ("generations", self.generations, 0),
                ("parents", self.parents, 1),
                ("mutations", self.mutations, 0),
                ("crossovers", self.crossovers, 0),
                ("proposals", self.proposals, 1),
                ("diversity", self.diversity, 0),
            )
            if value < least
        ]
        for name, value, accepted in (
            ("sampler", self.sampler, get_args(SamplerName)),
            ("operators", self.operators, get_args(OperatorSet)),
            ("mode", self.mode, get_args(SearchMode)),
            ("surrogate", self.surrogate, get_args(SurrogateName)),
            ("warm_start", self.warm_start, get_args(WarmStart)),
        ):
            if value not in accepted:
                faults.append(f"{name} must be one of {', '.join(accepted)}; got {value!r}")
        if self.mode == "steady-state" and self.sampler != "evolution":
            faults.append(f"steady-state mode needs the sampler evolution; got {self.sampler}")
        faults += [
            f"{name} needs the sampler evolution in generational mode; "
            f"got {self.sampler}, {self.mode}"
            for name, is_set in (
                ("a surrogate", self.surrogate != "none"),
                ("diversity", self.diversity != 0),
            )
            if is_set and not self.is_generational_evolution
        ]
        faults += self._faults_of_objectives()
        if not 0 <= self.size_price < math.inf:
            faults.append(f"size_price must be a number from 0 on; got {self.size_price}")
        if self.mutations + self.crossovers > self.population:
            faults.append(
                f"mutations + crossovers must fit into the population; got {self.mutations} + "
                f"{self.crossovers} for a population of {self.population}"
            )
        if not 0 <= self.mutation_probability <= 1:
            faults.append(
                f"mutation_probability must be in 0 to 1; got {self.mutation_probability}"
            )
        if faults:
            raise InvalidConfigError("search settings: " + "; ".join(faults))

    def _faults_of_objectives(self) -> list[str]:
        """What two objectives exclude: whatever makes one figure of them, or ranks by one alone."""
        try:
            self.objectives.check_searchable()
        except InvalidConfigError as error:
            return [f"objectives: {error}"]
        if not self.objectives.are_two:
            return []
        return [
            f"{name} needs one objective; got {self.objectives}"
            for name, is_set in (
                ("the sampler tpe", self.sampler == "tpe"),
                ("a surrogate", self.surrogate != "none"),
                ("diversity", self.diversity != 0),
                ("size_price", self.size_price != 0),
            )
            if is_set
        ]

    @property
    def is_generational_evolution(self) -> bool:
        """Whether whole generations are bred, from those before."""
        return self.sampler == "evolution" and self.mode == "generational"

    def price_of(self, n_params: int, space: SearchSpace) -> float:
        """What the size of a subnet of `space` makes its fitness worse by."""
        if not self.size_price:
            return 0.0
        most = self.limits.max_params
        if most is None:
            most = sum(max(costs) for costs in space.costs)
        return self.size_price * n_params / max(most, 1)

    @property
    def n_candidates(self) -> int:
        """The number of subnets in a whole search, if every generation is full."""
        return self.population * (self.generations + 1)
