"""The interface between a search loop and whatever decides what to evaluate next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from glora_search.proposing.settings import SearchSettings
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import SearchSpace


class Proposer(Protocol):
    """Proposes whole generations.

    A proposer is a pure function: of its space, settings and seed, and of the outcomes of
    generations before the one that is asked for. Any number of processes may hold one and get the
    same answer.
    """

    def propose(self, generation: int, history: Sequence[Outcome]) -> list[Candidate]:
        """The candidates of one generation, with indices from 0 without gaps.

        Args:
            generation: Counted from 0, the random initial population.
            history: Outcomes of the study, in any order. Those of `generation` and later are
                ignored, and so are the worker and the seconds of each.

        Returns:
            At most a population of distinct subnets, all within the limits, none of which an
            earlier generation holds. Fewer where the space has no more; an empty list ends the
            search.

        Raises:
            InfeasibleLimitError: The limits leave a window so narrow that no subnet was found in
                it.
        """
        ...


def make_proposer(space: SearchSpace, settings: SearchSettings, seed: int) -> Proposer:
    """The proposer that `settings.sampler` names.

    Raises:
        InfeasibleLimitError: No subnet of `space` is within `settings.limits`.
    """
    space.check_limits(settings.limits)
    if settings.sampler == "evolution":
        from glora_search.proposing.evolution import EvolutionProposer

        return EvolutionProposer(space, settings, seed)
    from glora_search.proposing.optuna_samplers import OptunaProposer

    return OptunaProposer(space, settings, seed)
