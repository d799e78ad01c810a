"""What the tests of `glora_search.recording` record: subnets of a small search space."""

from __future__ import annotations

import random

import pytest

from glora_search.recording.database import KNOWN_SCHEMAS
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace

STORES = {"tables": KNOWN_SCHEMAS, "public": frozenset[str]()}
"""Both ways to write trials, and the schemas that make a database choose each."""

EACH_STORE = ["tables", pytest.param("public", marks=pytest.mark.slow)]
"""As the parameters of a fixture; `make test-fast` has the first."""

CHOICES = {
    "A": ("lora_2", "lora_4", "vector", "none"),
    "B": ("lora_4", "constant", "none"),
    "C": ("vector", "none"),
    "D": ("vector", "constant", "none"),
    "E": ("constant", "none"),
}

SPACE = SearchSpace(
    [
        LayerSpec("blocks.0.attn.qkv", 8, 24, bias=True),
        LayerSpec("blocks.0.attn.proj", 8, 8, bias=False),  # its D has one choice only
    ],
    CHOICES,
)

LARGE_SPACE = SearchSpace(
    [LayerSpec(f"blocks.{k}.fc", 16, 16, bias=True) for k in range(48)], CHOICES
)


def outcome(generation: int, index: int, *, space: SearchSpace = SPACE, salt: int = 0) -> Outcome:
    """The outcome at a place: of every seven one failed, and some tie.

    Args:
        generation: Counted from 0.
        index: Counted from 0.
        space: Where the subnet is from.
        salt: Another number gives another subnet at the same place.
    """
    rng = random.Random(f"{generation}/{index}/{salt}")
    subnet = space.sample(rng)
    candidate = Candidate(
        generation=generation,
        index=index,
        operator="crossover" if generation else "random",
        parents=tuple(f"{rng.getrandbits(256):064x}" for _ in range(2 if generation else 0)),
        subnet=subnet,
        n_params=space.n_params(subnet),
    )
    if index % 7 == 6:
        return Outcome(
            candidate=candidate,
            eval_s=rng.random(),
            worker="node-1:4711",
            error_type="OutOfMemoryError",
            error='could not allocate "2 GiB" \\ 1 GiB free; \u00fc \u2028 \x00 \U0001f600',
        )
    return Outcome(
        candidate=candidate,
        loss=rng.random() / 3,
        top1=rng.randrange(200) / 200,
        calibrated_loss=rng.random() / 4,
        eval_s=rng.random(),
        worker=f"node-{rng.randrange(3)}:{rng.randrange(1, 9999)}",
    )


def batch(generation: int, size: int, *, space: SearchSpace = SPACE) -> list[Outcome]:
    """The first `size` outcomes of a generation."""
    return [outcome(generation, index, space=space) for index in range(size)]
