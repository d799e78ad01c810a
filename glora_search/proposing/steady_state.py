"""Steady-state evolution: a child is made when a worker is free, from the outcomes so far.

A generational search waits for the slowest evaluation of each generation; here no worker waits. The
scheme is (mu + lambda) with lambda 1, while many children are evaluated at once. The parents of a
child are the best of all outcomes at the moment when it is made. Its operator is the one that its
place would have in a generation.

The price: the parents of a child depend on the order in which outcomes arrive. So two runs of one
seed differ, and a resumed run differs from an undisturbed one. A search is a function of its seed
only if it evaluates one candidate at a time (one worker, in this process).

What stays: the generator of child i is seeded with (seed, "steady-state", i) in every process. No
subnet is evaluated twice. A study continues from its recorded outcomes, even if its process died.

Candidates are numbered as they are made. Candidate i has the place
(i // population, i % population), so "generation g" holds a population of candidates that were made
one after the other.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from glora_search.proposing.breeding import Breeder
from glora_search.proposing.evolution import fittest, selected
from glora_search.proposing.founders import Founders, Sensitivity, make_founders, n_founders
from glora_search.proposing.operators import Parent
from glora_search.proposing.seeding import steady_state_rng
from glora_search.proposing.settings import SearchSettings
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import Genome, SearchSpace


class SteadyStateProposer:
    """Starts and continues steady-state searches. It holds tables of the space, which no search
    changes.

    Raises:
        InfeasibleLimitError: No subnet of `space` is within `settings.limits`.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings,
        seed: int,
        *,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        space.check_limits(settings.limits)
        self._space = space
        self._settings = settings
        self._seed = seed
        self._breeder = Breeder(space.genes, settings, seed)
        self._founders = make_founders(space, settings, seed, sensitivity=sensitivity)

    def children(self, history: Sequence[Outcome]) -> Children:
        """The candidates that a study with these outcomes lacks, each made when it is asked for.

        Args:
            history: All recorded outcomes, in any order. Numbers that are missing among them come
                first.
        """
        return Children(
            self._space, self._settings, self._seed, self._breeder, history, founders=self._founders
        )


class Children(Iterator[Candidate]):
    """The candidates of a search, each made when it is asked for.

    A candidate is random if its number is in the first population (or a founder, where there are
    founders), or while fewer outcomes
    than `parents` have arrived without failure. The iteration ends after the last number, or when
    the space has no new subnet.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings,
        seed: int,
        breeder: Breeder,
        history: Sequence[Outcome],
        *,
        founders: Founders | None = None,
    ) -> None:
        self._founders = founders
        self._space, self._settings, self._seed = space, settings, seed
        self._breeder = breeder
        self._seen = _SeenGenomes(space.encode(o.candidate.subnet) for o in history)
        self._numbers = _missing(history, settings)
        self._fittest: list[Outcome] = []
        self._parents: list[Parent] = []
        self._arrived: list[Outcome] = []  # for two objectives, where room depends on all of them
        if settings.objectives.are_two:
            self._arrived = list(history)
            self._select()
            return
        for outcome in fittest(history, settings.objectives, settings.parents):
            self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """Note an outcome that has arrived. From now on it may be a parent."""
        if self._settings.objectives.are_two:
            self._arrived.append(outcome)
            self._select()
            return
        best, rank = self._fittest, self._settings.objectives.rank
        if not fittest([outcome], self._settings.objectives, 1):
            return  # it failed
        place = bisect.bisect(best, rank(outcome), key=rank)
        if place < self._settings.parents:
            genome = self._space.encode(outcome.candidate.subnet)
            best.insert(place, outcome)
            self._parents.insert(place, Parent.of(self._space.genes, genome))
            del best[self._settings.parents :], self._parents[self._settings.parents :]

    def _select(self) -> None:
        """Choose the parents anew."""
        settings, genes = self._settings, self._space.genes
        self._fittest = selected(self._arrived, settings.objectives, settings.parents)
        self._parents = [
            Parent.of(genes, self._space.encode(o.candidate.subnet)) for o in self._fittest
        ]

    def __next__(self) -> Candidate:
        """The next candidate, made from the outcomes that have arrived."""
        number = next(self._numbers)
        generation, index = divmod(number, self._settings.population)
        ready = generation > 0 and len(self._parents) == self._settings.parents
        rng = steady_state_rng(self._seed, number)
        draft = None
        if self._founders is not None and number < n_founders(self._settings):
            draft = self._founders.draft(index, self._seen, rng)
        parents = self._parents if ready else ()
        draft = draft or self._breeder.proposal(index, parents, self._seen, rng)
        if draft is None:
            self._numbers = iter(())
            raise StopIteration
        self._seen.add(draft.genome)
        subnet = self._space.decode(draft.genome)
        n_params = self._space.n_params(subnet)
        return Candidate(
            generation=generation,
            index=index,
            operator=draft.operator,
            parents=tuple(self._fittest[p].candidate.subnet.digest for p in draft.parents),
            subnet=subnet,
            n_params=n_params,
            price=self._settings.price_of(n_params, self._space),
        )


class _SeenGenomes:
    """The genomes that were proposed before, as a hash of 16 bytes each. Genomes are not decoded,
    because late in a search most attempts at a child were seen before.
    """

    def __init__(self, genomes: Iterable[Genome]) -> None:
        self._known = set(map(_mark, genomes))

    def __contains__(self, genome: object) -> bool:
        return isinstance(genome, tuple) and _mark(genome) in self._known

    def add(self, genome: Genome) -> None:
        """Remember `genome`."""
        self._known.add(_mark(genome))


def _mark(genome: Genome) -> bytes:
    return hashlib.blake2b(" ".join(genome).encode(), digest_size=16).digest()


def _missing(history: Sequence[Outcome], settings: SearchSettings) -> Iterator[int]:
    """The numbers of candidates that have no outcome, in ascending order."""
    recorded = {
        outcome.candidate.generation * settings.population + outcome.candidate.index
        for outcome in history
    }
    begun = max(recorded, default=-1) + 1
    gaps = [number for number in range(begun) if number not in recorded]
    return chain(gaps, range(begun, settings.n_candidates))
