"""Optuna's TPE, NSGA-II and random samplers as proposers.

An Optuna sampler reads a study and keeps a random generator, but a proposer must be a pure function
of the history. So each generation builds a new study in memory. It holds the earlier outcomes in
the order of their places, and a sampler seeded from (seed, generation), which is asked for a
population.

The value of a trial in that study is the rank of its outcome. Samplers only compare values, so
ranks give them the tie-breaks of `Objectives.rank`. With two objectives the values are the costs
themselves. Failed outcomes are left out, because samplers
ignore failed trials.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from glora_search.proposing.breeding import RandomGenomes
from glora_search.proposing.evolution import (
    EvolutionProposer,
    SeenSubnets,
    earlier_than,
    fittest,
)
from glora_search.proposing.founders import Sensitivity
from glora_search.proposing.operators import Parent
from glora_search.proposing.seeding import candidate_rng, numpy_seed
from glora_search.proposing.settings import SearchSettings
from glora_search.study.fronts import point
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import Genome, SearchSpace

_ASKS_PER_PLACE: Final = 3
_GENERATION: Final = "generation"


class OptunaProposer:
    """A `Proposer` that asks the Optuna sampler that the settings name.

    Generation 0 is the same population from which the evolution starts. A suggestion outside
    of the limits is reported as pruned, from which TPE learns; a duplicate is reported as failed. A
    generation has a bounded number of asks. After them, random subnets within the limits fill it.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings,
        seed: int,
        *,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        self._space = space
        self._settings = settings
        self._seed = seed
        self._first = EvolutionProposer(space, settings, seed, sensitivity=sensitivity)
        self._random_genomes = RandomGenomes(space.genes, settings.limits)
        self._distributions: dict[str, BaseDistribution] = {
            gene.name: CategoricalDistribution(gene.choices) for gene in space.genes
        }

    def propose(self, generation: int, history: Sequence[Outcome]) -> list[Candidate]:
        """The candidates of one generation."""
        if generation == 0:
            return self._first.propose(0, [])
        earlier = earlier_than(generation, history)
        seen = SeenSubnets(self._space, {o.candidate.subnet.digest for o in earlier})
        suggestions = self._suggestions(self._rebuilt_study(generation, earlier), seen)
        candidates = []
        for index in range(self._settings.population):
            operator, genome = str(self._settings.sampler), next(suggestions, None)
            if genome is None:
                rng = candidate_rng(self._seed, generation, index)
                operator, genome = "random", self._random_genomes.draw(rng, seen)
            if genome is None:
                break
            seen.add(genome)
            n_params = self._n_params(genome)
            candidates.append(
                Candidate(
                    generation=generation,
                    index=index,
                    operator=operator,
                    parents=(),
                    subnet=seen.subnet(genome),
                    n_params=n_params,
                    price=self._settings.price_of(n_params, self._space),
                )
            )
        return candidates

    def _rebuilt_study(self, generation: int, earlier: Sequence[Outcome]) -> optuna.Study:
        """A study in memory with the sampler and those of `earlier` that did not fail."""
        seed = numpy_seed(self._seed, generation)
        sampler = _SAMPLERS[self._settings.sampler](self._settings.population, generation, seed)
        with _unannounced():
            directions = [StudyDirection.MINIMIZE] * len(self._settings.objectives.each)
            study = optuna.create_study(sampler=sampler, directions=directions)
        if self._settings.sampler == "random":
            return study  # it reads no trials
        ranked = fittest(earlier, self._settings.objectives, len(earlier))
        values: dict[tuple[int, int], Sequence[float]] = {
            outcome.candidate.place: (float(k),) for k, outcome in enumerate(ranked)
        }
        if self._settings.objectives.are_two:
            costs = {o.candidate.place: point(o, self._settings.objectives) for o in ranked}
            values = {place: found for place, found in costs.items() if found is not None}
        for outcome in sorted(ranked, key=lambda o: o.candidate.place):
            study.add_trial(
                optuna.create_trial(
                    params=outcome.candidate.subnet.to_params(),
                    distributions=self._distributions,
                    values=values[outcome.candidate.place],
                    user_attrs={_GENERATION: outcome.candidate.generation},
                )
            )
        return study

    def _suggestions(self, study: optuna.Study, seen: SeenSubnets) -> Iterator[Genome]:
        """The sampler's suggestions that are new and within the limits.

        A yielded suggestion stays a running trial, because TPE avoids the neighbourhood of those.
        """
        for _ in range(_ASKS_PER_PLACE * self._settings.population):
            trial = study.ask(self._distributions)
            genome = tuple(str(trial.params[gene.name]) for gene in self._space.genes)
            if not self._settings.limits.allow(self._n_params(genome)):
                study.tell(trial, state=TrialState.PRUNED)
            elif genome in seen:
                study.tell(trial, state=TrialState.FAIL)
            else:
                yield genome

    def _n_params(self, genome: Genome) -> int:
        return sum(Parent.of(self._space.genes, genome).costs)


class _GenerationalNSGAII(NSGAIISampler):
    """NSGA-II that gets the generation as an argument.

    Optuna finds the generation by counting completed trials. After a generation with failures it
    would breed from the wrong population.
    """

    def __init__(self, population: int, generation: int, seed: int) -> None:
        super().__init__(population_size=max(population, 2), seed=seed)
        self._generation = generation

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """The generation that is being proposed."""
        return self._generation

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """The completed trials of `generation`."""
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in completed if trial.user_attrs[_GENERATION] == generation]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child of the parent population; empty if that has fewer than two members."""
        if len(self.get_parent_population(study, self._generation)) < 2:
            return {}  # Optuna's crossover fails on a single survivor
        return super().sample_relative(study, trial, search_space)


_SAMPLERS: Final[dict[str, Callable[[int, int, int], BaseSampler]]] = {
    "random": lambda population, generation, seed: RandomSampler(seed=seed),
    "tpe": lambda population, generation, seed: TPESampler(seed=seed),
    "nsgaii": _GenerationalNSGAII,
}
"""(population, generation, seed) to a sampler, by `SearchSettings.sampler`."""


@contextmanager
def _unannounced() -> Iterator[None]:
    """Keep Optuna from announcing, in this thread, that a study was created in memory."""
    here = threading.get_ident()

    def elsewhere_or_worse(record: logging.LogRecord) -> bool:
        return record.thread != here or record.levelno > logging.INFO

    logger = logging.getLogger(optuna.storages.InMemoryStorage.__module__)
    logger.addFilter(elsewhere_or_worse)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere_or_worse)
