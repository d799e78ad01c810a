"""Which runs a bench consists of: a pure function of its plan and of the results that are there.

Each method gets a small sweep of its learning rate on every task: one run a rate, with half of the
epochs and with a seed that no final run has. The rate with the highest val top-1, of equals the one
with the lower val loss, goes into the final runs, one a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from glora_search.bench.runs import Run, RunResult

SWEEP_SEED: Final = 1000
"""Of all sweep runs; final runs have the seeds from 0 on."""

FOLLOWS: Final = {"glora-random": "glora-search"}
"""Methods that use the trained supernet of another, and so its learning rate: after its runs."""


def trains_supernet(method: str) -> bool:
    """Whether a method takes the recipe of the study's supernet, but for the learning rate."""
    return method.startswith("glora-")


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What is to be compared.

    Args:
        tasks: Names.
        methods: Names; in the order of the table.
        seeds: Final runs of a method on a task.
        lrs: Method to the learning rates of its sweep; of one rate there is no sweep.
        epochs: Method to the epochs of its training; of a supernet 0 for what follows from space
            and data.
        studies: Task to the digest of its study; see `Run.study`.
        sweep_splits: Task to the draw of the data that its sweep takes, where the draws are lists
            and the sweep's own seed has none.
        test_sets: Task to the names of what one training is tested on; see `Run.test_sets`.
        batch_size: Of methods without a supernet; None for that of the study's supernet.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int
    lrs: Mapping[str, tuple[float, ...]]
    epochs: Mapping[str, int]
    studies: Mapping[str, str] = field(default_factory=dict)
    sweep_splits: Mapping[str, int] = field(default_factory=dict)
    test_sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    batch_size: int | None = None

    @property
    def n_runs(self) -> int:
        """Runs of the whole bench."""
        sweeps = sum(
            len(self.lrs[method])
            for method in self.methods
            if not self._follows(method) and len(self.lrs[method]) > 1
        )
        return len(self.tasks) * (sweeps + self.seeds * len(self.methods))

    def ready(self, done: Mapping[str, RunResult]) -> list[Run]:
        """Runs that are not done and whose inputs are: sweeps first, then seed by seed, so that a
        bench that is stopped has compared all methods on the first seeds.

        Args:
            done: Results by the key of their run; failed ones count as done.
        """
        return self.sweeps(done) + [run for run in self._finals(done) if run.key not in done]

    def finals(self) -> list[Run]:
        """The final runs of a plan without sweeps, seed by seed."""
        return self._finals({}, wait=False)

    def results(self, done: Mapping[str, RunResult]) -> list[RunResult]:
        """Of the final runs of this plan, those that are done, in its order."""
        runs = [
            self.final(task, method, seed, done, wait=False)
            for method in self.methods
            for task in self.tasks
            for seed in range(self.seeds)
        ]
        return [done[run.key] for run in runs if run is not None and run.key in done]

    def mine(self, done: Mapping[str, RunResult]) -> list[RunResult]:
        """Of all runs of this plan, those that are done; a record may hold others as well."""
        return self.swept(done) + self.results(done)

    def swept(self, done: Mapping[str, RunResult]) -> list[RunResult]:
        """Of the runs of all sweeps, those that are done."""
        return [done[run.key] for run in self._sweeps() if run.key in done]

    def sweeps(self, done: Mapping[str, RunResult]) -> list[Run]:
        """The runs of all sweeps that are not done."""
        return [run for run in self._sweeps() if run.key not in done]

    def final(
        self,
        task: str,
        method: str,
        seed: int,
        done: Mapping[str, RunResult],
        *,
        wait: bool = True,
    ) -> Run | None:
        """The run, once its learning rate is known and, unless `wait` is false, the run that it
        follows is done; else None.
        """
        leader = self._follows(method)
        lr = self._chosen_lr(task, leader or method, done)
        if lr is None:
            return None
        run = Run(
            task=task,
            method=method,
            seed=seed,
            lr=lr,
            epochs=self.epochs[method],
            role="final",
            study=self.studies.get(task, ""),
            test_sets=self.test_sets.get(task, ()),
            batch_size=self._batch_size(method),
        )
        if leader is not None and wait:
            first = self.final(task, leader, seed, done)
            if first is None or first.key not in done:
                return None
        return run

    def _finals(self, done: Mapping[str, RunResult], *, wait: bool = True) -> list[Run]:
        """The final runs that `final` gives, seed by seed."""
        return [
            run
            for seed in range(self.seeds)
            for task in self.tasks
            for method in self.methods
            if (run := self.final(task, method, seed, done, wait=wait)) is not None
        ]

    def _follows(self, method: str) -> str | None:
        leader = FOLLOWS.get(method)
        return leader if leader in self.methods else None

    def _batch_size(self, method: str) -> int | None:
        return None if trains_supernet(method) else self.batch_size

    def _sweeps(self) -> list[Run]:
        return [
            run
            for task in self.tasks
            for method in self.methods
            if self._follows(method) is None
            for run in self._sweep(task, method)
        ]

    def _sweep(self, task: str, method: str) -> list[Run]:
        rates = self.lrs[method]
        if len(rates) == 1:
            return []
        return [
            Run(
                task=task,
                method=method,
                seed=SWEEP_SEED,
                lr=lr,
                epochs=_half(self.epochs[method]),
                role="sweep",
                study=self.studies.get(task, ""),
                split=self.sweep_splits.get(task),
                batch_size=self._batch_size(method),
            )
            for lr in rates
        ]

    def _chosen_lr(self, task: str, method: str, done: Mapping[str, RunResult]) -> float | None:
        """The best rate of the sweep; None while runs of it are missing. Failed runs are last."""
        sweep = self._sweep(task, method)
        if not sweep:
            return self.lrs[method][0]
        results = [done.get(run.key) for run in sweep]
        if any(result is None for result in results):
            return None
        return min((r for r in results if r is not None), key=_badness).run.lr


@dataclass(frozen=True, kw_only=True)
class PowerPlan:
    """Of each task and method several draws of the data, each with several trainings.

    Args:
        plan: Its seeds are the trainings.
        splits: Draws of the data.
    """

    plan: BenchPlan
    splits: int

    @property
    def n_runs(self) -> int:
        """Runs of all."""
        cells = len(self.plan.tasks) * len(self.plan.methods) * self.plan.seeds
        return self.plan.n_runs + (self.splits - 1) * cells

    def ready(self, done: Mapping[str, RunResult]) -> list[Run]:
        """As of a `BenchPlan`."""
        finals = [run for run in self.finals(done) if run.key not in done]
        return self.plan.sweeps(done) or finals

    def mine(self, done: Mapping[str, RunResult]) -> list[RunResult]:
        """As of a `BenchPlan`."""
        finals = [done[run.key] for run in self.finals(done) if run.key in done]
        return self.plan.swept(done) + finals

    def finals(self, done: Mapping[str, RunResult]) -> list[Run]:
        """All runs but those of the sweeps; empty while the sweeps are not done."""
        plan, runs = self.plan, []
        for split in range(self.splits):
            for task in plan.tasks:
                for method in plan.methods:
                    for seed in range(plan.seeds):
                        run = plan.final(task, method, seed, done, wait=False)
                        if run is None:
                            return []
                        runs.append(replace(run, split=split))
        return runs


def _half(epochs: int) -> int:
    """Half of the epochs, at least one; where their number is still to be derived, all of them."""
    return max(1, epochs // 2) if epochs else epochs


def _badness(result: RunResult) -> tuple[bool, float, float]:
    if result.val_top1 is None or result.val_loss is None:
        return True, 0.0, 0.0
    return False, -result.val_top1, result.val_loss
