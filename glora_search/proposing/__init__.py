"""Proposes what to evaluate next: pure functions from the outcomes so far to the next generation.
In a steady-state search they give the next child.

This package uses no torch, database or Ray, and no generator outlives a call. It imports Optuna
only for Optuna's samplers, and in `glora_search.proposing.sampler`, the same evolution as a sampler
for `study.optimize`.
"""

from glora_search.proposing.founders import Sensitivity
from glora_search.proposing.proposer import Proposer, make_proposer
from glora_search.proposing.settings import SearchSettings
from glora_search.proposing.steady_state import SteadyStateProposer

__all__ = ["Proposer", "SearchSettings", "Sensitivity", "SteadyStateProposer", "make_proposer"]
