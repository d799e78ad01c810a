"""Scorers without a network, with the faults that they are told to have; for workers anywhere."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray import cloudpickle

from glora_search.study.outcomes import Candidate
from search_spaces import LayerSpec, SearchSpace, SubnetConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

_LAYERS = [
    LayerSpec(f"blocks.{block}.{name}", 8, 8, bias=True) for block in range(3) for name in "qp"
]
SPACE = SearchSpace(
    _LAYERS,
    {
        "A": ["none", "lora_2"],
        "B": ["none", "vector"],
        "C": ["none"],
        "D": ["none", "constant"],
        "E": ["none"],
    },
)

_evaluated: dict[Path, int] = {}  # by this process


@dataclass(frozen=True)
class Figures:
    """What a scorer says of a subnet."""

    loss: float
    top1: float = 0.5
    n_images: int = 1
    eval_s: float = 0.01


def loss_of(subnet: SubnetConfig) -> float:
    """Another loss for every subnet."""
    return int(subnet.digest[:8], 16) / 2**32


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A package that is its own scorer.

    Args:
        eval_s: Seconds that an evaluation takes.
        deadly: Digests of the subnets that end the process which evaluates them.
        hanging: Digests of the subnets whose evaluation does not end.
        deadly_load: Whether unpacking does.
        faulty_load: Whether unpacking raises.
        told: A file to which each evaluation adds a line.
        gate: A file; until it is there, each process evaluates `before_gate` subnets and waits.
        before_gate: How many; with `eval_s` above 0.05, or their results wait as well.
    """

    space: str = SPACE.to_json()
    eval_s: float = 0.0
    deadly: frozenset[str] = frozenset()
    hanging: frozenset[str] = frozenset()
    deadly_load: bool = False
    faulty_load: bool = False
    told: Path | None = None
    gate: Path | None = None
    before_gate: int = 10

    def unpack(self) -> StandIn:
        if self.deadly_load:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.faulty_load:
            raise ValueError("told to fail")
        return self

    def evaluate_each(self, subnets: Sequence[SubnetConfig]) -> Iterator[tuple[int, Figures]]:
        """Last first: a run's results may come in any order."""
        for position, subnet in reversed(list(enumerate(subnets))):
            self._pass_gate()
            if subnet.digest in self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600 if subnet.digest in self.hanging else self.eval_s)
            if self.told is not None:
                with self.told.open("a") as file:
                    file.write(f"{subnet.digest}\n")
            yield position, Figures(loss_of(subnet))

    def _pass_gate(self) -> None:
        if self.gate is None:
            return
        _evaluated[self.gate] = _evaluated.get(self.gate, 0) + 1
        while _evaluated[self.gate] > self.before_gate and not self.gate.exists():
            time.sleep(0.02)


def candidates(n: int, seed: int = 0) -> list[Candidate]:
    """Distinct ones, in no order."""
    rng = random.Random(seed)
    subnets: dict[str, SubnetConfig] = {}
    while len(subnets) < n:
        subnet = SPACE.sample(rng)
        subnets[subnet.digest] = subnet
    return [
        Candidate(
            generation=0,
            index=index,
            operator="random",
            parents=(),
            subnet=subnet,
            n_params=SPACE.n_params(subnet),
        )
        for index, subnet in enumerate(subnets.values())
    ]
