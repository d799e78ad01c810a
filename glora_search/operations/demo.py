"""The demo: the whole path on scikit-learn's handwritten digits, and what it is worth beside
baselines.

Nothing in it is simulated: it launches the packaged study `digits` as any study is launched.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from glora_search.operations import launching
from glora_search.operations.baselines import BackgroundBaselines, n_epochs
from glora_search.recording import Database
from glora_search.reporting import write_report
from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Progress
from glora_search.study.examples import load_example
from glora_search.study.reading import apply_overrides, parse_study
from glora_search.study.study_file import StudyFile
from search_spaces import ParamLimits, SubnetConfig
from supernet import Split, Supernet, evaluate_subnets

_RANDOM_SUBNETS: Final = 10
_SIZE_TOLERANCE: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the demo's table; the names are those that the report reads."""

    what: str
    n_params: int
    val_loss: float
    val_top1: float
    test_top1: float


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """A demo that has ended.

    Args:
        result: Of its search.
        rows: The winner beside what needs no search.
        fitness: What the search went by.
        n_train: Images of the training split.
        n_val: Images of the validation split.
        n_test: Images of the test split.
        report: The HTML file.
        storage: The database.
        seconds: It took.
    """

    result: launching.SearchResult
    rows: list[Row]
    fitness: str
    n_train: int
    n_val: int
    n_test: int
    report: Path
    storage: str
    seconds: float

    @property
    def noise(self) -> float:
        """The difference of two rows' test top-1 below which one seed and this number of images
        tell nothing: two standard errors of a difference, as if the rows were independent.
        """
        top1 = [row.test_top1 for row in self.rows]
        p = sum(top1) / len(top1)
        return 2 * math.sqrt(2 * p * (1 - p) / self.n_test)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "study": self.result.name,
            "evaluated": len(self.result.outcomes),
            "comparison": [dataclasses.asdict(row) for row in self.rows],
            "seeds": 1,
            "noise": round(self.noise, 4),
            "export": self.result.export.summary(),
            "report": str(self.report),
            "storage": self.storage,
            "seconds": round(self.seconds, 1),
        }


def run_demo(out: Path, overrides: Iterable[str], *, progress: Progress) -> DemoResult:
    """Run the demo in the folder `out`.

    A demo that was interrupted there is resumed; one that is complete is followed by another study.

    Args:
        out: Made if it is not there; database, networks, export and report go there.
        overrides: As in `load_study_file`.
        progress: Where to report long steps.
    """
    started = time.monotonic()
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{out / 'studies.db'}"
    file = _study(out, storage, overrides)
    prepare(file, progress)  # trains the backbone, if that has not been done
    with BackgroundBaselines(file) as training:
        if _is_unfinished(storage, file.study.name):
            progress.note(f"resuming {file.study.name}")
            result = launching.resume(file.study.name, storage=storage, progress=progress)
        else:
            result = launching.launch(file, storage=storage, progress=progress)
        with progress.bar("training the baselines", n_epochs(file)) as bar:
            baselines = training.finish(bar)
    test = result.materials.test_split(progress)
    rows = _compare(result, baselines, test)
    report = out / f"{result.name}.html"
    with Database.open(storage, create=False) as database:
        record = database.open_study(result.name)
        record.set_attribute("comparison", [dataclasses.asdict(row) for row in rows])
        write_report(record, report)
    return DemoResult(
        result=result,
        rows=rows,
        fitness=file.search.fitness,
        n_train=len(result.materials.train),
        n_val=len(result.materials.val),
        n_test=len(test),
        report=report,
        storage=storage,
        seconds=time.monotonic() - started,
    )


def _study(out: Path, storage: str, overrides: Iterable[str]) -> StudyFile:
    """The packaged study in this folder, under the first name that is free or unfinished."""
    table = tomllib.loads(load_example("digits"))
    table["study"]["directory"] = str(out)
    apply_overrides(table, overrides)
    name = table["study"]["name"]
    file = parse_study(table, origin="the demo's study")
    number = 1
    while _is_complete(storage, file.study.name):
        number += 1
        table["study"]["name"] = f"{name}-{number}"
        file = parse_study(table, origin="the demo's study")
    return file


def _status(storage: str, name: str) -> str | None:
    with Database.open(storage, create=True) as database:
        found = [s.attributes.get("status") for s in database.list_studies() if s.name == name]
    return found[0] if found else None


def _is_complete(storage: str, name: str) -> bool:
    return _status(storage, name) == "complete"


def _is_unfinished(storage: str, name: str) -> bool:
    return _status(storage, name) not in (None, "complete")


def _compare(
    result: launching.SearchResult, baselines: Mapping[str, Supernet], test: Split
) -> list[Row]:
    """The winner beside random subnets of its size and the baselines."""
    materials, val = result.materials, result.materials.val
    winner = result.winner.candidate
    window = int(_SIZE_TOLERANCE * winner.n_params)
    limits = ParamLimits(winner.n_params - window, winner.n_params + window)
    randoms = [
        materials.space.sample(random.Random(f"demo/{k}"), limits) for k in range(_RANDOM_SUBNETS)
    ]
    return [
        _row("winner of the search", result.supernet, [winner.subnet], val, test),
        _row(f"random subnet (mean of {_RANDOM_SUBNETS})", result.supernet, randoms, val, test),
        *(
            _row(what, network, [network.space.min_subnet()], val, test)
            for what, network in baselines.items()
        ),
    ]


def _row(
    what: str, supernet: Supernet, subnets: Sequence[SubnetConfig], val: Split, test: Split
) -> Row:
    """Means over `subnets`, on the supernet's device."""
    device = next(supernet.parameters()).device
    on_val = evaluate_subnets(supernet, subnets, val.to(device))
    on_test = evaluate_subnets(supernet, subnets, test.to(device))
    return Row(
        what=what,
        n_params=round(_mean(supernet.space.n_params(subnet) for subnet in subnets)),
        val_loss=_mean(evaluation.loss for evaluation in on_val),
        val_top1=_mean(evaluation.top1 for evaluation in on_val),
        test_top1=_mean(evaluation.top1 for evaluation in on_test),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
