"""How much is done: which tasks, seeds, methods, designs and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from glora_search.bench.science.designs import BASE, DESIGNS
from glora_search.bench.suites import OFFLINE_TASKS, QUICK_TASKS

UNIFORM: Final = (
    *("linear", "lora", "fact-tt", "fact-tk", "ssf", "repadapter", "adaptformer"),
    *("glora", "full"),
)
"""Methods that need no search, beside the winner."""

_RUNS: Final = 4
_RUN_EPOCHS: Final = 25


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        tasks: Of `methods`, `cost`, `ends`, `samplers`, `fitness` and `fronts`.
        seeds: Of these.
        some_tasks: Of `ranking`, `designs` and `budgets`, which cost the most.
        some_seeds: Of these.
        supernet_epochs: None for those of the suite's study.
        search: Keys of [search] that differ from the suite's study.
        methods: Without search.
        best_of: Trainings of LoRA of which the best by val is taken.
        ranked: Subnets a cell of `ranking`.
        designs: Names.
        budgets: Multiples of `search.max_params`.
    """

    tasks: tuple[str, ...]
    seeds: int
    some_tasks: tuple[str, ...]
    some_seeds: int
    supernet_epochs: int | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = UNIFORM
    best_of: int = 5
    ranked: int = 40
    designs: tuple[str, ...] = tuple(DESIGNS)
    budgets: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)


FULL: Final = Scale(tasks=OFFLINE_TASKS, seeds=5, some_tasks=QUICK_TASKS, some_seeds=2)
QUICK: Final = Scale(
    tasks=("digits",),
    seeds=2,
    some_tasks=("digits",),
    some_seeds=2,
    supernet_epochs=30,
    search={  # 100 subnets in all
        "population": 20,
        "generations": 4,
        "parents": 10,
        "mutations": 10,
        "crossovers": 10,
    },
    methods=("linear", "lora"),
    best_of=2,
    ranked=8,
    designs=(BASE, "published"),
    budgets=(1.0, 2.0),
)


def trained_on_epochs(epochs: int) -> tuple[int, int]:
    """Runs in which a winner is trained on, and epochs of each, where its supernet trained for
    `epochs`.
    """
    return _RUNS, max(1, min(_RUN_EPOCHS, epochs // _RUNS))
