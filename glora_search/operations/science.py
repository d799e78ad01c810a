"""What a search is worth and why, on the offline suite: all of docs/science.md, from nothing.

Its runs are recorded as those of any bench, so it can be stopped at any time, and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from glora_search.bench.plan import BenchPlan, PowerPlan
from glora_search.bench.recipes import QUICK_EPOCHS, QUICK_FACTORS
from glora_search.bench.runs import RunResult
from glora_search.bench.science.designs import BASE, DESIGNS, keys_of
from glora_search.bench.science.plan import QuestionPlan
from glora_search.bench.science.scale import FULL, QUICK, UNIFORM, Scale, trained_on_epochs
from glora_search.bench.science.tables import (
    FrontTable,
    RankTable,
    ScienceTable,
    arms_of,
    evaluations_needed,
    flattery,
    front_table,
    rank_table,
    science_table,
)
from glora_search.bench.statistics import Interval
from glora_search.bench.suite_plan import make_plan
from glora_search.bench.suites import Suite, offline_suite
from glora_search.operations.recorded_bench import Agenda, run_all
from glora_search.stages.progress import Progress, Silent
from glora_search.study.errors import StudyFileError

Part = Literal[
    "methods",
    "cost",
    "ends",
    "samplers",
    "fitness",
    "fronts",
    "ranking",
    "designs",
    "budgets",
]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

_WINNER: Final = "winner"
_LONG: Final = ("lora", "fact-tk")
"""Methods that are trained on as many images as a supernet as well."""


@dataclass(frozen=True, kw_only=True)
class Science:
    """What was found.

    Args:
        tables: By part.
        ranks: Of the part `ranking`.
        needed: Of the part `samplers`: evaluations each needs for the result of the evolution.
        flattery: Of the part `fitness`: see `glora_search.bench.science.tables.flattery`.
        fronts: Of the part `fronts`.
        runs: Every result.
        versions: That the results depend on.
        machine: Likewise.
    """

    tables: dict[str, ScienceTable] = field(default_factory=dict)
    ranks: RankTable | None = None
    needed: dict[str, Interval] = field(default_factory=dict)
    flattery: dict[str, Interval] = field(default_factory=dict)
    fronts: FrontTable | None = None
    runs: list[RunResult] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "tables": {name: table.to_json() for name, table in self.tables.items()},
            "ranking": None if self.ranks is None else self.ranks.to_json(),
            "evaluations_needed": _as_lists(self.needed),
            "flattery": _as_lists(self.flattery),
            "fronts": None if self.fronts is None else self.fronts.to_json(),
            "runs": [result.to_json() for result in self.runs],
            "versions": self.versions,
            "machine": self.machine,
        }


def science(
    *,
    parts: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: int | None = None,
    methods: Sequence[str] | None = None,
    designs: Sequence[str] | None = None,
    epochs: int | None = None,
    quick: bool = False,
    directory: Path,
    workers: int = 2,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Science:
    """Ask all questions, or some.

    Args:
        parts: Of PARTS; all if not given.
        tasks: Of every part; names of OFFLINE_TASKS.
        seeds: Of every part.
        methods: Without search, of the parts `methods`, `cost` and `budgets`; names of UNIFORM.
        designs: Names of DESIGNS; the default is always one of them.
        epochs: Of the supernets; those of the suite's study if not given.
        quick: The scale of a first look, which takes ten minutes on two cores.
        directory: As in `bench_offline`.
        workers: As in `bench_offline`.
        storage: As in `glora_search.launch`.
        progress: Where to report.

    Raises:
        StudyFileError: An unknown part, method, design or task.
        GLoRASearchError, KeyboardInterrupt: As in `compare`.
    """
    scale = QUICK if quick else FULL
    if tasks is not None:
        scale = replace(scale, tasks=tuple(tasks), some_tasks=tuple(tasks))
    if seeds is not None:
        scale = replace(scale, seeds=seeds, some_seeds=seeds)
    if methods is not None:
        scale = replace(scale, methods=tuple(methods))
    if designs is not None:
        scale = replace(scale, designs=tuple(dict.fromkeys((BASE, *designs))))
    if epochs is not None:
        scale = replace(scale, supernet_epochs=epochs)
    chosen = tuple(PARTS if parts is None else parts)
    _check("parts", chosen, PARTS)
    _check("methods", scale.methods, UNIFORM)
    _check("designs", scale.designs, DESIGNS)
    with ExitStack() as stack:
        asking = _Asking(scale, directory, workers, storage, progress or Silent(), stack)
        for part in PARTS:
            if part in chosen:
                asking.parts[part]()
        return asking.found()


def _check(what: str, names: Sequence[str], known: Sequence[str] | Any) -> None:
    if unknown := [name for name in names if name not in known]:
        raise StudyFileError(f"{what} = {', '.join(unknown)}: each of {', '.join(known)}")


class _Asking:
    """Does the parts, and keeps what they find."""

    def __init__(
        self,
        scale: Scale,
        directory: Path,
        workers: int,
        storage: str | None,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self._scale, self._directory, self._workers = scale, directory, workers
        self._storage, self._progress, self._stack = storage, progress, stack
        self._tables: dict[str, ScienceTable] = {}
        self._ranks: RankTable | None = None
        self._needed: dict[str, Interval] = {}
        self._flattery: dict[str, Interval] = {}
        self._fronts: FrontTable | None = None
        self._runs: dict[str, RunResult] = {}
        self._known: dict[str, Any] = {}
        self.parts: dict[Part, Callable[[], None]] = {
            "methods": self._methods,
            "cost": self._cost,
            "ends": self._ends,
            "samplers": self._samplers,
            "fitness": self._fitness,
            "fronts": self._find_fronts,
            "ranking": self._ranking,
            "designs": self._designs,
            "budgets": self._budgets,
        }

    def found(self) -> Science:
        """What the parts have found."""
        return Science(
            tables=self._tables,
            ranks=self._ranks,
            needed=self._needed,
            flattery=self._flattery,
            fronts=self._fronts,
            runs=list(self._runs.values()),
            versions=self._known.get("versions", {}),
            machine=self._known.get("machine", {}),
        )

    def _methods(self) -> None:
        """The winner beside methods without search."""
        suite = self._suite(self._scale.tasks)
        plan = self._plan(suite, self._scale.methods)
        results = plan.results(self._do(suite, plan))
        results += arms_of(self._ask(suite, "exports", self._scale.seeds))
        reference = "lora" if "lora" in self._scale.methods else _WINNER
        self._tables["methods"] = self._table(
            "the winner and methods without search", results, reference, suite
        )

    def _cost(self) -> None:
        """The winner beside methods that see as many images as the supernet, and the best of
        several LoRAs.
        """
        suite = self._suite(self._scale.tasks)
        plan = self._plan(suite, ("lora",))
        results = plan.results(self._do(suite, plan))
        results += self._longer(suite) + self._best_of(suite)
        results += arms_of(self._ask(suite, "exports", self._scale.seeds))
        self._tables["cost"] = self._table("what else the time could buy", results, "lora", suite)

    def _longer(self, suite: Suite) -> list[RunResult]:
        """Methods without search that see as many images, in sweep and training, as the supernet
        and its winner that is trained on.
        """
        results: list[RunResult] = []
        for method in (m for m in self._scale.methods if m in _LONG):
            plan = self._plan(suite, (method,))
            rounds = 1 + len(plan.lrs[method]) / 2  # a run of the sweep has half of the epochs
            of_supernet = _file_of(suite).supernet.epochs
            epochs = round((of_supernet + math.prod(trained_on_epochs(of_supernet))) / rounds)
            plan = replace(plan, epochs={method: epochs})
            results += _renamed(plan.results(self._do(suite, plan)), f"{method}, {epochs} epochs")
        return results

    def _best_of(self, suite: Suite) -> list[RunResult]:
        """Of several trainings of LoRA on each draw of the data the best by val."""
        plan = replace(self._plan(suite, ("lora",)), seeds=self._scale.best_of)
        several = PowerPlan(plan=plan, splits=self._scale.seeds)
        done = self._do(suite, several)
        by_cell: dict[tuple[str, int], list[RunResult]] = {}
        for run in several.finals(done):
            if run.key in done and not done[run.key].failed:
                by_cell.setdefault((run.task, run.split or 0), []).append(done[run.key])
        best = []
        for (_, split), found in by_cell.items():
            picked = min(found, key=lambda result: (-(result.val_top1 or 0), result.val_loss))
            best.append(
                replace(
                    picked,
                    run=replace(picked.run, seed=split, split=None),
                    train_s=sum(result.train_s for result in found),
                )
            )
        return _renamed(best, f"lora, best of {self._scale.best_of} by val")

    def _ends(self) -> None:
        """Everything that one could export of one search."""
        suite = self._suite(self._scale.tasks)
        found = self._ask(suite, "ends", self._scale.seeds)
        self._tables["ends"] = self._table(
            "one search, and what could be exported of it", arms_of(found), _WINNER, suite
        )

    def _samplers(self) -> None:
        """Proposers at equal evaluations."""
        suite = self._suite(self._scale.tasks)
        found = self._ask(suite, "samplers", self._scale.seeds)
        self._tables["samplers"] = self._table(
            "samplers at equal evaluations", arms_of(found), "evolution", suite
        )
        self._needed = evaluations_needed(found, "evolution")

    def _fitness(self) -> None:
        """Fitnesses of one supernet, by their winners."""
        suite = self._suite(self._scale.tasks)
        found = self._ask(suite, "fitness", self._scale.seeds)
        self._tables["fitness"] = self._table(
            "what a search is judged by", arms_of(found), "val loss", suite
        )
        self._flattery = flattery(found)

    def _find_fronts(self) -> None:
        """Searches of two objectives at equal evaluations."""
        suite = self._suite(self._scale.tasks)
        search = _file_of(suite).search
        self._fronts = front_table(
            self._ask(suite, "fronts", self._scale.seeds),
            "ours",
            evaluations=search.population * (search.generations + 1),
        )

    def _ranking(self) -> None:
        """Whether inherited weights rank subnets as training alone does."""
        suite = self._suite(self._scale.some_tasks)
        question = f"ranking:{self._scale.ranked}"
        self._ranks = rank_table(self._ask(suite, question, self._scale.some_seeds))

    def _designs(self) -> None:
        """Ways to train a supernet, judged by the winner."""
        results: list[RunResult] = []
        suite = base = self._suite(self._scale.some_tasks)
        for name in self._scale.designs:
            keys = keys_of(name, _file_of(base).supernet.epochs)
            suite = self._suite(self._scale.some_tasks, keys=keys)
            found = self._ask(suite, "winner", self._scale.some_seeds)
            results += arms_of(found, named=name)
        self._tables["designs"] = self._table(
            "ways to train the supernet, by their winners", results, BASE, base
        )

    def _budgets(self) -> None:
        """The winner and methods of the same size, at several sizes."""
        results: list[RunResult] = []
        base = self._suite(self._scale.some_tasks)
        whole = _file_of(base).search.max_params or 0
        sized = [m for m in self._scale.methods if m in ("lora", "fact-tk", "adaptformer")]
        for factor in self._scale.budgets:
            suite = self._suite(self._scale.some_tasks, max_params=round(whole * factor))
            for method in sized:
                plan = replace(self._plan(suite, (method,)), seeds=self._scale.some_seeds)
                results += _renamed(plan.results(self._do(suite, plan)), f"{method} x{factor:g}")
            found = self._ask(suite, "winner", self._scale.some_seeds)
            results += arms_of(found, named=f"winner x{factor:g}")
        reference = "lora x1" if "lora" in sized else "winner x1"
        self._tables["budgets"] = self._table(
            "sizes, all winners from one supernet", results, reference, base
        )

    def _table(
        self, name: str, results: Sequence[RunResult], reference: str, suite: Suite
    ) -> ScienceTable:
        return science_table(name, results, reference, suite.layout)

    def _suite(
        self,
        tasks: Sequence[str],
        *,
        keys: dict[str, Any] | None = None,
        max_params: int | None = None,
    ) -> Suite:
        supernet, search = dict(keys or {}), dict(self._scale.search)
        if self._scale.supernet_epochs is not None:
            supernet.setdefault("epochs", self._scale.supernet_epochs)
        if max_params is not None:
            search["max_params"] = max_params
        return replace(
            offline_suite(
                tasks,
                self._directory,
                workers=self._workers,
                supernet=supernet,
                search=search,
            ),
            name="science",
        )

    def _plan(self, suite: Suite, methods: Sequence[str]) -> BenchPlan:
        return make_plan(suite, methods, self._scale.seeds, QUICK_EPOCHS, QUICK_FACTORS)

    def _ask(self, suite: Suite, question: str, seeds: int) -> list[RunResult]:
        plan = QuestionPlan(suite=suite, seeds=seeds, question=question)
        return plan.mine(self._do(suite, plan))

    def _do(self, suite: Suite, agenda: Agenda) -> dict[str, RunResult]:
        with ExitStack() as stack:
            done, known = run_all(
                suite, agenda, self._storage, self._progress, stack, cluster=self._stack
            )
        self._known = dict(known)
        self._runs |= {result.run.key: result for result in agenda.mine(done)}
        return done


def _as_lists(found: Mapping[str, Interval]) -> dict[str, list[float | None]]:
    return {name: each.to_json() for name, each in found.items()}


def _file_of(suite: Suite) -> Any:
    return next(iter(suite.files.values()))


def _renamed(results: Sequence[RunResult], name: str) -> list[RunResult]:
    return [replace(result, run=replace(result.run, method=name)) for result in results]
