"""The random generators of a search.

Each candidate has a new generator, seeded from the study's seed and the candidate's place. No state
passes from one candidate to the next, so nothing is lost when a process dies.
"""

from __future__ import annotations

import random


def candidate_rng(seed: int, generation: int, index: int) -> random.Random:
    """The generator of candidate `index` of `generation`, the same in every process."""
    return random.Random(f"{seed}/{generation}/{index}")  # a str is hashed by SHA-512, unsalted


def proposal_rng(seed: int, generation: int, index: int, attempt: int) -> random.Random:
    """The generator of one of several children from which the candidate of a place is chosen."""
    return random.Random(f"{seed}/{generation}/{index}/proposal/{attempt}")


def steady_state_rng(seed: int, number: int) -> random.Random:
    """The generator of candidate `number` of a steady-state search, which has no generations."""
    return random.Random(f"{seed}/steady-state/{number}")


def numpy_seed(*parts: int | str) -> int:
    """A seed of 32 bits for samplers that use numpy; it depends on `parts` alone."""
    return random.Random("/".join(map(str, parts))).getrandbits(32)
