"""The evolution as an Optuna sampler, for `study.optimize` and Ray Tune's `OptunaSearch`.

The sampler is stateless: at each trial it reads what it needs from the study's storage. So a second
process, or the same one after a crash, continues where the first stopped.

A trial's number gives its place: generation `number // population`, index `number % population`.
The sampler breeds the whole generation again from the trials of earlier generations, and gives the
trial the genome at its index.

With one trial at a time, the result is a function of the seed and the objective alone. With several
at a time, a generation may start before the last trials of the previous one have finished. Its
parents are then chosen from the trials that have finished.
"""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from glora_search.proposing.breeding import Breeder
from glora_search.proposing.operators import Parent
from glora_search.proposing.seeding import candidate_rng, numpy_seed
from glora_search.proposing.settings import SearchSettings
from glora_search.study.search_names import OperatorSet
from search_spaces import Gene, Genome, InvalidConfigError, ParamLimits, SearchSpace


class EvolutionSampler(BaseSampler):
    """Evolves the categorical parameters of a study that has one objective.

    The categorical parameters that all parents have evolve together. All other parameters
    (numerical, conditional or new ones) are drawn independently at random.

    Example:
        >>> sampler = EvolutionSampler(seed=0, population=20)
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(objective, n_trials=200)

    Args:
        seed: All draws are functions of it; None takes a random one.
        population: Trials in a generation. The first generation is random.
        parents: How many of the best trials of all earlier generations are parents.
        mutations: Children by mutation in a generation; by default half of the population.
        crossovers: Children by crossover in a generation; by default half of the population.
        mutation_probability: With the published operators, the probability that a parameter is
            redrawn.
        operators: `local` or `published`, as in `SearchSettings`.
        space: The GLoRA search space, if the study searches one. Its genes are sampled together
            from the first trial on, in the order of the backbone.
        max_params: The largest number of trainable adapter scalars; needs `space`.

    Raises:
        InvalidConfigError: A number is out of range, or `max_params` is given without `space`.
        InfeasibleLimitError: No subnet of `space` is within `max_params`.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        population: int = 50,
        parents: int = 10,
        mutations: int | None = None,
        crossovers: int | None = None,
        mutation_probability: float = 0.2,
        operators: OperatorSet = "published",
        space: SearchSpace | None = None,
        max_params: int | None = None,
    ) -> None:
        self._seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self._space = space
        self._settings = SearchSettings(
            population=population,
            parents=parents,
            mutations=population // 2 if mutations is None else mutations,
            crossovers=population // 2 if crossovers is None else crossovers,
            mutation_probability=mutation_probability,
            operators=operators,
            limits=ParamLimits(max_params=max_params),
        )
        if space is not None:
            space.check_limits(self._settings.limits)
        elif max_params is not None:
            raise InvalidConfigError(
                f"max_params={max_params} cannot be met without knowing what each choice costs; "
                f"give space as well"
            )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that evolve: those of `space`, or the categorical ones of all parents."""
        self._raise_error_if_multi_objective(study)
        if self._space is not None:
            # Genes with a single choice are included, because they count against max_params.
            return {gene.name: CategoricalDistribution(gene.choices) for gene in self._space.genes}
        parents = self._fittest(study, trial, names=())
        return {
            name: distribution
            for name, distribution in intersection_search_space(parents).items()
            if isinstance(distribution, CategoricalDistribution) and not distribution.single()
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the genome at this trial's place; empty if nothing evolves yet."""
        self._raise_error_if_multi_objective(study)
        evolving = {
            name: distribution
            for name, distribution in search_space.items()
            if isinstance(distribution, CategoricalDistribution)
        }
        if not evolving:
            return {}
        genes = self._genes(evolving)
        names = [gene.name for gene in genes]
        parents = [
            Parent.of(genes, _genome(parent, names))
            for parent in self._fittest(study, trial, names)
        ]
        seen = {_genome(t, names) for t in self._earlier(study, trial) if _holds(t, names)}
        genome = self._bred(genes, trial, parents, seen)
        return {
            gene.name: evolving[gene.name].choices[gene.choices.index(token)]
            for gene, token in zip(genes, genome, strict=True)
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A uniform draw, seeded from the sampler's seed, the trial's number and the name."""
        self._raise_error_if_multi_objective(study)
        sampler = RandomSampler(seed=numpy_seed(self._seed, trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _bred(
        self,
        genes: tuple[Gene, ...],
        trial: FrozenTrial,
        parents: Sequence[Parent],
        seen: set[Genome],
    ) -> Genome:
        """The genome at the place of `trial`; a repeated genome if there is no new one."""
        generation, index = divmod(trial.number, self._settings.population)
        breeder = Breeder(genes, self._settings, self._seed)
        for draft in islice(breeder.breed(generation, parents, seen), index, None):
            return draft.genome
        repeated = breeder.random_genomes.draw(
            candidate_rng(self._seed, generation, index), seen=set()
        )
        assert repeated is not None  # the limits are feasible, and nothing counts as seen
        return repeated

    def _earlier(self, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """The finished trials of the generations before that of `trial`."""
        first = trial.number - trial.number % self._settings.population
        finished = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        trials = study.get_trials(deepcopy=False, states=finished)
        return [t for t in trials if t.number < first]

    def _fittest(
        self, study: optuna.Study, trial: FrozenTrial, names: Sequence[str]
    ) -> list[FrozenTrial]:
        """The parents of `trial`, best first: completed trials that have all of `names`."""
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        ranked = [
            (sign * t.value, t.number, t)
            for t in self._earlier(study, trial)
            if t.state == TrialState.COMPLETE and t.value is not None and _holds(t, names)
        ]
        return [t for _, _, t in heapq.nsmallest(self._settings.parents, ranked)]

    def _genes(self, evolving: Mapping[str, CategoricalDistribution]) -> tuple[Gene, ...]:
        """The parameters as genes, in the order of `space`; without a space, of their names."""
        costs: dict[str, tuple[int, ...]] = {}
        if self._space is not None:
            costs = {g.name: g.costs for g in self._space.genes if g.name in evolving}
        order = list(costs) if costs else sorted(evolving, key=_natural)
        return tuple(
            Gene(
                name=name,
                choices=tuple(map(repr, evolving[name].choices)),
                costs=costs.get(name, (0,) * len(evolving[name].choices)),
            )
            for name in order
        )


def _holds(trial: FrozenTrial, names: Sequence[str]) -> bool:
    return all(name in trial.params for name in names)


def _genome(trial: FrozenTrial, names: Sequence[str]) -> Genome:
    """The tokens of `trial`: the reprs of its choices, so that None, 1 and '1' differ."""
    return tuple(repr(trial.params[name]) for name in names)


def _natural(name: str) -> list[str | int]:
    """A sort key that puts blocks.2 before blocks.10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
