"""What a report is about: everything that the database holds of a study, read at one moment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from glora_search.recording import StudyRecord
from glora_search.reporting.attributes import StudyFacts, read_facts
from glora_search.reporting.formatting import standard_error
from glora_search.reporting.trials import Trials, complete, in_search_order, ranking
from glora_search.study.finalists import winner_of
from glora_search.study.fronts import front, knee_of
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import SearchSpace, rank_of, token_params


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The evaluations that failed with one kind of error.

    Args:
        error_type: The class of the error.
        numbers: The trials.
        example: What the first of them said.
    """

    error_type: str
    numbers: tuple[int, ...]
    example: str


@dataclass(frozen=True)
class Composition:
    """What a subnet consists of.

    Args:
        supports: Low-rank, vector, constant or none, to the number of support tensors.
        low_rank_params: Trainable scalars of those that are low-rank.
    """

    supports: dict[str, int]
    low_rank_params: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study as it was when it was read.

    Args:
        name: The study's name.
        space: What its subnets are chosen from.
        objectives: What it optimises.
        trials: All outcomes, in the order of the search.
        facts: What else is known of it.
        holder: The process that drives it now; None where none does.
    """

    name: str
    space: SearchSpace
    objectives: Objectives
    trials: Trials
    facts: StudyFacts
    holder: str | None

    @cached_property
    def complete(self) -> dict[int, Outcome]:
        """The trials that have numbers."""
        return complete(self.trials)

    @cached_property
    def ranking(self) -> list[int]:
        """The complete trials' numbers, best first."""
        return ranking(self.trials, self.objectives)

    @cached_property
    def winner(self) -> int | None:
        """The best trial's number, where there are finalists by their float32 figures; None where
        none is complete.
        """
        return winner_of(self.trials, self.objectives, self.facts.finalists)

    @cached_property
    def front(self) -> list[int]:
        """The trials on the front of two objectives, the second one rising; empty for one."""
        return front(self.trials, self.objectives) if self.objectives.are_two else []

    @cached_property
    def knee(self) -> int | None:
        """The trial at the knee of the front; None where there is none."""
        return knee_of(self.trials, self.front, self.objectives) if self.front else None

    @property
    def magnitude(self) -> int:
        """The power of ten that is nearest to the number of subnets."""
        return round(math.log10(self.space.size))

    @property
    def n_generations(self) -> int:
        """Generations of which anything is recorded."""
        return len({outcome.candidate.generation for outcome in self.trials.values()})

    @cached_property
    def failures(self) -> list[Failures]:
        """The failures by kind, the most frequent first."""
        grouped: dict[str, list[int]] = {}
        for number, outcome in self.trials.items():
            if outcome.failed:
                grouped.setdefault(outcome.error_type or "unknown", []).append(number)
        return [
            Failures(
                error_type=kind,
                numbers=tuple(numbers),
                example=self.trials[numbers[0]].error or "",
            )
            for kind, numbers in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0]))
        ]

    @cached_property
    def n_alike(self) -> int | None:
        """Others within one standard error of the winner's val top-1; None where not known."""
        if self.winner is None:
            return None
        top1 = self.complete[self.winner].top1
        error = standard_error(top1, self.facts.n_val)
        if top1 is None or error is None:
            return None
        near = [o for o in self.complete.values() if o.top1 is not None and o.top1 >= top1 - error]
        return len(near) - 1

    @property
    def winner_is_exported(self) -> bool:
        """Whether the export's figures are the winner's, as the search found it."""
        exported = self.facts.export
        if exported is None or exported.trial is None:
            return False
        if exported.finetuned or exported.calibrated:
            return False
        return exported.trial == self.winner

    def composition(self, number: int) -> Composition:
        """What the subnet of a trial consists of."""
        subnet = self.trials[number].candidate.subnet
        kinds: Counter[str] = Counter()
        low_rank_params = 0
        for layer in self.space.layers:
            for support, token in subnet.layers[layer.name].items():
                kinds["low-rank" if rank_of(token) else token] += 1
                if rank_of(token):
                    low_rank_params += token_params(support, token, layer)
        order = ("low-rank", "vector", "constant", "none")
        return Composition({kind: kinds[kind] for kind in order}, low_rank_params)


def take_snapshot(record: StudyRecord) -> Snapshot:
    """Read a study.

    Raises:
        StorageError: The database fails.
    """
    holder = record.holder
    return snapshot_of(
        record,
        record.trials(),
        record.attributes,
        holder=None if holder is None else str(holder),
    )


def snapshot_of(
    record: StudyRecord, trials: Trials, attributes: Mapping[str, Any], *, holder: str | None
) -> Snapshot:
    """What a report is about, from what was read of a study; the database is not asked.

    Args:
        record: The study.
        trials: All of its outcomes, in any order.
        attributes: What is stored with it.
        holder: The process that drives it; None where none does.
    """
    return Snapshot(
        name=record.name,
        space=record.space,
        objectives=record.objectives,
        trials=in_search_order(trials),
        facts=read_facts(attributes),
        holder=holder,
    )
