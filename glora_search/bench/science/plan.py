"""Which questions are asked of which supernets: a pure function of the plan and of what is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glora_search.bench.runs import Run, RunResult
from glora_search.bench.suite_plan import study_digest
from glora_search.bench.suites import Suite


@dataclass(frozen=True, kw_only=True)
class QuestionPlan:
    """One question, asked of a supernet a task and seed.

    Args:
        suite: The tasks and their studies, which say how supernets train.
        seeds: A supernet each, on another draw of the data.
        question: As `Run.question`.
    """

    suite: Suite
    seeds: int
    question: str

    @property
    def n_runs(self) -> int:
        """Runs in all."""
        return len(self.suite.files) * self.seeds

    @property
    def runs(self) -> Sequence[Run]:
        """All runs, seed by seed."""
        return [
            Run(
                task=task,
                method="glora-search",
                seed=seed,
                lr=file.supernet.lr,
                epochs=file.supernet.epochs,
                role="final",
                study=study_digest(file),
                question=self.question,
            )
            for seed in range(self.seeds)
            for task, file in self.suite.files.items()
        ]

    def ready(self, done: Mapping[str, RunResult]) -> list[Run]:
        """Runs that are not done."""
        return [run for run in self.runs if run.key not in done]

    def mine(self, done: Mapping[str, RunResult]) -> list[RunResult]:
        """Results of its runs."""
        return [done[run.key] for run in self.runs if run.key in done]
