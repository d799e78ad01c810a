"""Evolution as a pure function from the outcomes of earlier generations to the next generation.

It is elitist: the parents are the best outcomes of all earlier generations, for two objectives in
the sense of `glora_search.proposing.nsga2`. The last generation is
ranked like every other; the published loop never ranks its last offspring.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from operator import ne

from glora_search.proposing.breeding import Breeder, Draft
from glora_search.proposing.founders import Founders, Sensitivity, make_founders, n_founders
from glora_search.proposing.nsga2 import survivors
from glora_search.proposing.operators import Parent
from glora_search.proposing.preselecting import Preselection
from glora_search.proposing.seeding import candidate_rng, numpy_seed
from glora_search.proposing.settings import SearchSettings
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import Genome, SearchSpace, SubnetConfig


class SeenSubnets:
    """The subnets that were proposed before, by digest. It decodes each genome once."""

    def __init__(self, space: SearchSpace, digests: set[str]) -> None:
        self._space = space
        self._digests = digests
        self._decoded: dict[Genome, SubnetConfig] = {}

    def subnet(self, genome: Genome) -> SubnetConfig:
        """The subnet that `genome` stands for."""
        if genome not in self._decoded:
            self._decoded[genome] = self._space.decode(genome)
        return self._decoded[genome]

    def __contains__(self, genome: object) -> bool:
        return isinstance(genome, tuple) and self.subnet(genome).digest in self._digests

    def add(self, genome: Genome) -> None:
        """Remember `genome`."""
        self._digests.add(self.subnet(genome).digest)


def propose_generation(
    space: SearchSpace,
    settings: SearchSettings,
    seed: int,
    generation: int,
    history: Sequence[Outcome],
    *,
    sensitivity: Sensitivity | None = None,
) -> list[Candidate]:
    """The candidates of one generation, as `Proposer.propose` promises them.

    Args:
        space: The search space.
        settings: The operators, how many children each makes, the fitness and the limits.
        seed: The study's seed.
        generation: Counted from 0, the random one.
        history: Outcomes in any order; those of `generation` and later are ignored.
        sensitivity: As in `make_proposer`.
    """
    proposer = EvolutionProposer(space, settings, seed, sensitivity=sensitivity)
    return proposer.propose(generation, history)


class EvolutionProposer:
    """A `Proposer`. It holds tables of the space, which no generation changes."""

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
        self._breeder = Breeder(space.genes, settings, seed)
        self._founders = make_founders(space, settings, seed, sensitivity=sensitivity)

    def propose(self, generation: int, history: Sequence[Outcome]) -> list[Candidate]:
        """The candidates of one generation."""
        space = self._space
        earlier = earlier_than(generation, history)
        parents, best = self._parents(earlier)
        digests = [o.candidate.subnet.digest for o in best]
        seen = SeenSubnets(space, {o.candidate.subnet.digest for o in earlier})
        candidates = []
        for index, draft in enumerate(self._drafts(generation, earlier, parents, seen)):
            n_params = sum(Parent.of(space.genes, draft.genome).costs)
            candidates.append(
                Candidate(
                    generation=generation,
                    index=index,
                    operator=draft.operator,
                    parents=tuple(digests[p] for p in draft.parents),
                    subnet=seen.subnet(draft.genome),
                    n_params=n_params,
                    price=self._settings.price_of(n_params, space),
                )
            )
        return candidates

    def _parents(self, earlier: Sequence[Outcome]) -> tuple[list[Parent], list[Outcome]]:
        """The parents of a generation, best first, and their outcomes."""
        settings, space = self._settings, self._space
        least = settings.diversity
        n_ranked = len(earlier) if least else settings.parents
        parents: list[Parent] = []
        chosen: list[Outcome] = []
        for outcome in selected(earlier, settings.objectives, n_ranked):
            if len(chosen) == settings.parents:
                break
            genome = space.encode(outcome.candidate.subnet)
            if all(sum(map(ne, genome, parent.genome)) >= least for parent in parents):
                parents.append(Parent.of(space.genes, genome))
                chosen.append(outcome)
        return parents, chosen

    def _drafts(
        self,
        generation: int,
        earlier: Sequence[Outcome],
        parents: Sequence[Parent],
        seen: SeenSubnets,
    ) -> Iterator[Draft]:
        """The genomes of a generation: the first one with its founders, later ones chosen by a
        surrogate where the settings name one.
        """
        if generation == 0 and self._founders is not None:
            return self._first(self._founders, seen)
        if self._settings.surrogate != "none":
            from glora_search.proposing.surrogates import fitted  # it needs numpy

            model = fitted(self._space, self._settings, earlier, numpy_seed(self._seed, generation))
            if model is not None:
                choice = Preselection(self._breeder, self._settings, self._seed, model)
                return choice.breed(generation, parents, seen)
        return self._breeder.breed(generation, parents, seen)

    def _first(self, founders: Founders, seen: SeenSubnets) -> Iterator[Draft]:
        """Generation 0 with founders. The random places have the subnets of a random start."""
        for index in range(self._settings.population):
            rng = candidate_rng(self._seed, 0, index)
            draft = None
            if index < n_founders(self._settings):
                draft = founders.draft(index, seen, rng)
            draft = draft or self._breeder.proposal(index, (), seen, rng)
            if draft is None:
                return
            seen.add(draft.genome)
            yield draft


def earlier_than(generation: int, history: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes of generations before `generation`, in the order given."""
    return [outcome for outcome in history if outcome.candidate.generation < generation]


def selected(outcomes: Iterable[Outcome], objectives: Objectives, n: int) -> list[Outcome]:
    """The best `n` outcomes without failures, from which parents are taken, best first: for two
    objectives those that cover the front. The order of `outcomes` has no effect.
    """
    if objectives.are_two:
        return survivors(outcomes, objectives, n)
    return fittest(outcomes, objectives, n)


def fittest(outcomes: Iterable[Outcome], objectives: Objectives, n: int) -> list[Outcome]:
    """The best `n` in the first objective, without failures, best first. The order of `outcomes`
    has no effect.
    """
    finite = (
        outcome
        for outcome in outcomes
        if (value := objectives.fitness(outcome)) is not None and math.isfinite(value)
    )
    return heapq.nsmallest(n, finite, key=objectives.rank)
