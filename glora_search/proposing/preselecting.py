"""Preselection: makes several children for a place, and keeps the one with the best prediction.

Making a child takes a millisecond, evaluating it takes seconds. So the operator of each place makes
several children, a model predicts their fitness, and only the best of them is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from glora_search.proposing.breeding import Breeder, Draft, Seen
from glora_search.proposing.operators import Parent
from glora_search.proposing.seeding import candidate_rng, proposal_rng
from glora_search.proposing.settings import SearchSettings
from search_spaces import Genome


class Surrogate(Protocol):
    """A model of the fitness, fitted to outcomes."""

    def predict(self, genomes: Sequence[Genome]) -> list[float]:
        """For each genome its expected fitness in a unit of the model's own; lower is better."""
        ...


@dataclass(frozen=True, eq=False)
class Preselection:
    """Fills a generation like `Breeder.breed`, with the children that a model likes best.

    Args:
        breeder: Makes the children.
        settings: The population, and how many children are made for each of its places.
        seed: The study's seed.
        model: Fitted to the outcomes of all earlier generations.
    """

    breeder: Breeder
    settings: SearchSettings
    seed: int
    model: Surrogate

    def breed(self, generation: int, parents: Sequence[Parent], seen: Seen) -> Iterator[Draft]:
        """The genomes of one generation, as `Breeder.breed` promises them.

        Args:
            generation: Its number. Each child has a generator of its own, seeded from this number,
                its place, and its position among the children of the place.
            parents: Best first.
            seen: The genomes that were proposed before. Each new genome is added to it.
        """
        places = range(self.settings.population)
        children = [self._children(generation, index, parents, seen) for index in places]
        for index, ranked in zip(places, self._ranked(children), strict=True):
            draft = next((draft for draft in ranked if draft.genome not in seen), None)
            if draft is None:  # places before this one took all of its children
                rng = candidate_rng(self.seed, generation, index)
                draft = self.breeder.proposal(index, parents, seen, rng)
            if draft is None:
                return
            seen.add(draft.genome)
            yield draft

    def _children(
        self, generation: int, index: int, parents: Sequence[Parent], seen: Seen
    ) -> list[Draft]:
        """What the operator of a place makes; each is new, but two may be the same."""
        generators = (
            proposal_rng(self.seed, generation, index, attempt)
            for attempt in range(self.settings.proposals)
        )
        made = (self.breeder.proposal(index, parents, seen, rng) for rng in generators)
        return [draft for draft in made if draft is not None]

    def _ranked(self, children: Sequence[Sequence[Draft]]) -> Iterator[list[Draft]]:
        """The children of each place, best first; of equals the one that was made first."""
        flat = [draft.genome for drafts in children for draft in drafts]
        predicted = iter(self.model.predict(flat))
        for drafts in children:
            values = [next(predicted) for _ in drafts]
            order = sorted(range(len(drafts)), key=values.__getitem__)
            yield [drafts[k] for k in order]
