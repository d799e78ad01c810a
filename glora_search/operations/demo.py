"""The demo: the whole path on scikit-learn's handwritten digits, and what it is worth beside
methods that need no search.

Nothing in it is simulated: it launches the packaged study `digits` as any study is launched, and
compares methods on it as `compare` does.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from glora_search.bench.ahead import RunsAhead
from glora_search.bench.plan import BenchPlan
from glora_search.bench.suite_plan import study_digest
from glora_search.bench.suites import suite_of
from glora_search.bench.table import Row
from glora_search.operations import launching
from glora_search.operations.recorded_bench import Comparison, compare_suite
from glora_search.recording import Database
from glora_search.reporting import write_report
from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Progress
from glora_search.study.examples import load_example
from glora_search.study.reading import apply_overrides, parse_study
from glora_search.study.study_file import StudyFile

_SEEDS: Final = 3
_PLAIN: Final = {"linear": 1e-2, "lora": 1e-2}
"""Methods without a search to their learning rates: the largest that a sweep of `compare` tries."""

_PLAIN_EPOCHS: Final = 100
_COMPARISON: Final = "comparison"
"""The attribute of the study that holds the table."""

_SEARCHED: Final = ("glora-search", "glora-random")


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """A demo that has ended.

    Args:
        result: Of its search, the first seed of the comparison.
        comparison: Of the search with what needs none, on several draws of the data.
        report: The HTML file.
        storage: The database.
        seconds: It took.
    """

    result: launching.SearchResult
    comparison: Comparison
    report: Path
    storage: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "study": self.result.name,
            "evaluated": len(self.result.outcomes),
            "comparison": self.comparison.to_json(),
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
    plan = _plan(file)
    # The first seed is that of the launch, whose supernet it takes.
    with RunsAhead([run for run in plan.finals() if run.seed], file) as ahead:
        if _attributes(storage, file.study.name) is not None:
            progress.note(f"resuming {file.study.name}")
            result = launching.resume(file.study.name, storage=storage, progress=progress)
        else:
            result = launching.launch(file, storage=storage, progress=progress)
        comparison = compare_suite(
            suite_of(file), plan, "lora", storage, progress, do=ahead.results
        )
    report = out / f"{result.name}.html"
    with Database.open(storage, create=False) as database:
        record = database.open_study(result.name)
        record.set_attribute(_COMPARISON, [_reported(row) for row in comparison.rows])
        write_report(record, report)
    return DemoResult(
        result=result,
        comparison=comparison,
        report=report,
        storage=storage,
        seconds=time.monotonic() - started,
    )


def _reported(row: Row) -> dict[str, Any]:
    """A row of the comparison as the report reads it."""
    table = row.to_json()
    return {
        "what": row.method,
        "n_params": None if row.n_params is None else round(row.n_params),
        "seeds": row.n_runs,
        "val_loss": None if row.val_loss is None else row.val_loss.mean,
        "val_top1": None if row.val_top1 is None else row.val_top1.mean,
        "test_top1": None if row.test_top1 is None else row.test_top1.mean,
        "test_interval": table["test_interval"],
        "difference": table["difference"],
    }


def _plan(file: StudyFile) -> BenchPlan:
    epochs = file.supernet.epochs
    return BenchPlan(
        tasks=(file.study.name,),
        methods=(*_PLAIN, *_SEARCHED),
        seeds=_SEEDS,
        lrs={
            **{method: (lr,) for method, lr in _PLAIN.items()},
            **dict.fromkeys(_SEARCHED, (file.supernet.lr,)),
        },
        epochs={
            **dict.fromkeys(_PLAIN, min(_PLAIN_EPOCHS, epochs or _PLAIN_EPOCHS)),
            **dict.fromkeys(_SEARCHED, epochs),
        },
        studies={file.study.name: study_digest(file)},
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


def _attributes(storage: str, name: str) -> Mapping[str, Any] | None:
    with Database.open(storage, create=True) as database:
        found = [study.attributes for study in database.list_studies() if study.name == name]
    return found[0] if found else None


def _is_complete(storage: str, name: str) -> bool:
    known = _attributes(storage, name)
    return known is not None and known.get("status") == "complete" and _COMPARISON in known
