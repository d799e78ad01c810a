"""Steady-state evolution: a child is made when a worker is free, from the outcomes so far.

A generation waits for its slowest evaluation; here no worker waits. (mu + lambda) with lambda 1 and
many children under way: the parents of a child are the best of all outcomes at the moment when it
is made, and its operator is the one that its place would have in a generation.

What that gives up: which parents a child has depends on the order in which outcomes arrive, so two
runs of one seed differ, and so do a run and the same run resumed. Only with one candidate under way
at a time (one worker, in this process) is a search a function of its seed. What is kept: the draws
of child i come from a generator seeded with (seed, "steady-state", i), whichever process makes it;
no subnet is evaluated twice; a study goes on from its recorded outcomes, whatever became of the
process that got them.

Candidates are numbered as they are made. Candidate i has the place
(i // population, i % population), so "generation g" is the g-th population's worth of candidates in
the order in which they were made.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from glora_search.proposing.breeding import Breeder
from glora_search.proposing.evolution import fittest
from glora_search.proposing.operators import Parent
from glora_search.proposing.seeding import steady_state_rng
from glora_search.proposing.settings import SearchSettings
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import Genome, SearchSpace


class SteadyStateProposer:
    """Starts and continues steady-state searches; holds tables of the space, and nothing that a
    search changes.

    Raises:
        InfeasibleLimitError: No subnet of `space` is within `settings.limits`.
    """

    def __init__(self, space: SearchSpace, settings: SearchSettings, seed: int) -> None:
        space.check_limits(settings.limits)
        self._space = space
        self._settings = settings
        self._seed = seed
        self._breeder = Breeder(space.genes, settings, seed)

    def children(self, history: Sequence[Outcome]) -> Children:
        """What a study with these outcomes lacks, to be made one after the other.

        Args:
            history: Everything recorded, in any order; the numbers that it lacks come first.
        """
        return Children(self._space, self._settings, self._seed, self._breeder, history)


class Children(Iterator[Candidate]):
    """The candidates of a search, each made when it is asked for.

    Random ones until as many outcomes are there as there are parents, and for the numbers of the
    first population. The end comes with the last number, or when the space has nothing new.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings,
        seed: int,
        breeder: Breeder,
        history: Sequence[Outcome],
    ) -> None:
        self._space, self._settings, self._seed = space, settings, seed
        self._breeder = breeder
        self._seen = _SeenGenomes(space.encode(o.candidate.subnet) for o in history)
        self._numbers = _missing(history, settings)
        self._fittest: list[Outcome] = []
        self._parents: list[Parent] = []
        for outcome in fittest(history, settings.objectives, settings.parents):
            self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """An outcome has arrived: from now on it may be a parent."""
        best, rank = self._fittest, self._settings.objectives.rank
        if not fittest([outcome], self._settings.objectives, 1):
            return  # it failed
        place = bisect.bisect(best, rank(outcome), key=rank)
        if place < self._settings.parents:
            genome = self._space.encode(outcome.candidate.subnet)
            best.insert(place, outcome)
            self._parents.insert(place, Parent.of(self._space.genes, genome))
            del best[self._settings.parents :], self._parents[self._settings.parents :]

    def __next__(self) -> Candidate:
        """The next candidate, made of what has arrived."""
        number = next(self._numbers)
        generation, index = divmod(number, self._settings.population)
        ready = generation > 0 and len(self._parents) == self._settings.parents
        draft = self._breeder.draft(
            index,
            self._parents if ready else (),
            self._seen,
            steady_state_rng(self._seed, number),
        )
        if draft is None:
            self._numbers = iter(())
            raise StopIteration
        subnet = self._space.decode(draft.genome)
        return Candidate(
            generation=generation,
            index=index,
            operator=draft.operator,
            parents=tuple(self._fittest[p].candidate.subnet.digest for p in draft.parents),
            subnet=subnet,
            n_params=self._space.n_params(subnet),
        )


class _SeenGenomes:
    """Which genomes were proposed before: 16 bytes of each, made without decoding it. Late in a
    search most attempts at a child have been seen.
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
