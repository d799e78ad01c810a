"""What to evaluate next: pure functions from the outcomes so far to the next generation, or, where
a search is to be steady, to the next child.

No torch, no database, no Ray, and nothing random that outlives a call. Optuna is imported only
where one of its samplers is asked for, and in `glora_search.proposing.sampler`, the same evolution
as a sampler for `study.optimize`.
"""

from glora_search.proposing.proposer import Proposer, make_proposer
from glora_search.proposing.settings import SearchSettings
from glora_search.proposing.steady_state import SteadyStateProposer

__all__ = ["Proposer", "SearchSettings", "SteadyStateProposer", "make_proposer"]
