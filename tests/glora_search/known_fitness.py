"""A table of known fitness: searches without a network, a data set, or torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from glora_search.proposing import Proposer
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import Gene, LayerSpec, SearchSpace, SubnetConfig

CHOICES = {
    "A": ["lora_4", "lora_2", "vector", "constant", "none"],
    "B": ["lora_4", "lora_2", "vector", "constant", "none"],
    "C": ["vector", "none"],
    "D": ["vector", "constant", "none"],
    "E": ["vector", "constant", "none"],
}


def vit_space(blocks: int) -> SearchSpace:
    """Two layers a block, of unlike shapes; 10 genes a block."""
    shapes = (("attn.qkv", 8, 24), ("mlp.fc1", 8, 32))
    return SearchSpace(
        [
            LayerSpec(f"blocks.{block}.{name}", i, o, bias=True)
            for block in range(blocks)
            for name, i, o in shapes
        ],
        CHOICES,
    )


def tiny_space() -> SearchSpace:
    """Eight subnets."""
    choices = {"A": ["vector", "none"], "B": ["lora_2", "none"], "C": ["none"]}
    return SearchSpace(
        [LayerSpec("fc", 4, 4, bias=True)], {**choices, "D": ["none"], "E": ["vector", "none"]}
    )


@lru_cache(maxsize=100_000)
def _noise(*words: str) -> float:
    """A number in [0, 1) that depends on `words` alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256("|".join(words).encode()).digest()[:7], "big") / 2**56


def loss_of(space: SearchSpace, subnet: SubnetConfig, landscape: str = "") -> float:
    """A separable part (each gene's token) plus interactions (tokens of neighbouring genes)."""
    genes: tuple[Gene, ...] = space.genes
    tokens = space.encode(subnet)
    own = [_noise(landscape, g.name, t) for g, t in zip(genes, tokens, strict=True)]
    pairs = [
        _noise(landscape, g.name, t, after)
        for g, t, after in zip(genes[:-1], tokens[:-1], tokens[1:], strict=True)
    ]
    return (sum(own) + 0.5 * sum(pairs)) / len(genes)


def outcome_of(space: SearchSpace, candidate: Candidate, landscape: str = "") -> Outcome:
    """What the table says of `candidate`; top-1 in steps of half a point, so that many tie."""
    loss = loss_of(space, candidate.subnet, landscape)
    return Outcome(
        candidate=candidate, loss=loss, top1=round(200 * (1 - loss)) / 200, eval_s=0.1, worker="a:1"
    )


def searched(
    space: SearchSpace, proposer: Proposer, generations: Sequence[int], landscape: str = ""
) -> list[Outcome]:
    """The history of a search through `generations`, in the order of places."""
    history: list[Outcome] = []
    for generation in generations:
        proposed = proposer.propose(generation, history)
        history += [outcome_of(space, candidate, landscape) for candidate in proposed]
    return history
