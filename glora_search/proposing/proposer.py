"""The interface of proposers, which tell a search loop what to evaluate next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from glora_search.proposing.founders import Sensitivity
from glora_search.proposing.settings import SearchSettings
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import SearchSpace


class Proposer(Protocol):
    """Proposes whole generations.

    A proposer is a pure function of its space, its settings, its seed, and the outcomes of the
    generations before the proposed one. So any two processes get the same candidates.
    """

    def propose(self, generation: int, history: Sequence[Outcome]) -> list[Candidate]:
        """The candidates of one generation, with indices from 0 without gaps.

        Args:
            generation: Counted from 0, the random initial population.
            history: Outcomes of the study, in any order. Those of `generation` and later are
                ignored. So are the worker and the seconds of each outcome.

        Returns:
            At most a population of distinct subnets. All are within the limits, and none was in an
            earlier generation. They are fewer if the space has no more; an empty list ends the
            search.

        Raises:
            InfeasibleLimitError: The limits are so narrow that no subnet within them was found.
        """
        ...


def make_proposer(
    space: SearchSpace,
    settings: SearchSettings,
    seed: int,
    *,
    sensitivity: Sensitivity | None = None,
) -> Proposer:
    """The proposer that `settings.sampler` names.

    Args:
        space: What subnets are chosen from.
        settings: Of the search.
        seed: Of the study.
        sensitivity: Scores of the choices of every gene, where the warm start needs them.

    Raises:
        InfeasibleLimitError: No subnet of `space` is within `settings.limits`.
        InvalidConfigError: The warm start needs scores that are not given.
    """
    space.check_limits(settings.limits)
    if settings.sampler == "evolution":
        from glora_search.proposing.evolution import EvolutionProposer

        return EvolutionProposer(space, settings, seed, sensitivity=sensitivity)
    from glora_search.proposing.optuna_samplers import OptunaProposer

    return OptunaProposer(space, settings, seed, sensitivity=sensitivity)
