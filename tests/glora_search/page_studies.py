"""A database with a study in every state that the page tells apart, for the tests of the page."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from reporting_studies import HOSTILE, VIT, outcome, outcomes

from glora_search.operations.running import LOG
from glora_search.operations.served_exports import FOLDER
from glora_search.operations.serving import create_study
from glora_search.recording import Database, StudyRecord
from glora_search.reporting.snapshot import Snapshot, take_snapshot
from glora_search.server.settings import ServerSettings
from glora_search.study.examples import load_example
from glora_search.study.objectives import BY_LOSS, BY_LOSS_AND_PARAMS, BY_TOP1, Objectives
from glora_search.study.outcomes import Outcome

WORDS = {
    "finished": "finished",
    "running": "searching",
    "fresh": "training",
    "halted": "stopped",
    "broken": "failed",
    "by-top1": "finished",
    "two": "finished",
    "two-again": "finished",
    "damaged": "damaged",
    "created": "created",
    "starting": "starting",
    "not-started": "not started",
}
"""The studies in the order of the list, and the word on the badge of each."""

SHOWN = tuple(name for name in WORDS if name != "damaged")
"""Those that can be read, so that they have a page."""

PAGES = ("/", "/new", "/login", "/compare", *(f"/studies/{name}" for name in SHOWN))

WHY_NOT = f"error: no file '/{'a_long_name_' * 10}/backbone.safetensors'"
"""The last line of the log of `not-started`, with a word that is wider than a telephone."""

EXPORT = {
    "directory": "/somewhere/export",
    "trial": 3,
    "val": {"top1": 0.84, "loss": 0.4, "n_images": 500},
    "test": {"top1": 0.825, "loss": 0.41, "n_images": 1000},
    "n_params": {"adapter": 900, "head": 20},
}


def make_study(
    database: Database,
    name: str,
    status: str,
    found: list[Outcome],
    objectives: Objectives = BY_LOSS,
    **attributes: Any,
) -> StudyRecord:
    """A study of 10 subnets in each of 5 generations, with the outcomes in `found`."""
    search = {"population": 10, "generations": 4, "max_failures": 10}
    study = {"study": {"name": name}, "data": {"n_val": 500}, "search": search}
    study["cluster"] = {"workers": 2}
    record = database.create_study(
        name,
        space=VIT,
        objectives=objectives,
        attributes={"study": study, "status": status, **attributes},
    )
    if found:
        with record.hold():
            record.flush(found)
    return record


def example_table(name: str) -> dict[str, Any]:
    """The study file of the smallest example, under another name."""
    table = tomllib.loads(load_example("digits"))
    table["study"]["name"] = name
    return table


@contextmanager
def studies_in_every_state(folder: Path) -> Iterator[ServerSettings]:
    """Settings of a server whose database holds the studies of `WORDS`. This process drives those
    that run.
    """
    url = f"sqlite:///{folder / 'studies.db'}"
    failed = [outcome(k, error_type="OutOfMemoryError", error=HOSTILE) for k in range(10)]
    with ExitStack() as stack:
        database = stack.enter_context(Database.open(url, create=True))
        make_study(database, "finished", "complete", outcomes(50), export=EXPORT)
        running = make_study(database, "running", "searching", outcomes(20))
        fresh = make_study(database, "fresh", "training", [])
        make_study(database, "halted", "searching", outcomes(12))
        make_study(database, "broken", "searching", failed)
        make_study(database, "by-top1", "complete", outcomes(30), BY_TOP1)
        two = make_study(
            database,
            "two",
            "complete",
            outcomes(30),
            BY_LOSS_AND_PARAMS,
            fingerprints={"supernet": "1234"},
            supernet=str(folder / "studies.db"),  # a file that is there
        )
        make_study(database, "two-again", "complete", outcomes(20), BY_LOSS_AND_PARAMS)
        make_study(database, "damaged", "searching", [])
        _record_of_a_later_version(url, "damaged")
        for name in ("created", "starting", "not-started"):
            create_study(database, example_table(name))
        (folder / "not-started").mkdir()
        (folder / "not-started" / LOG).write_text(f"{WHY_NOT}\n")
        for held in (running.hold(), fresh.hold(), database.services()["starting"].claim()):
            stack.enter_context(held)
        _export_knee(folder / "two" / FOLDER, take_snapshot(two))
        yield ServerSettings(storage=url, root=folder)


def _record_of_a_later_version(url: str, name: str) -> None:
    optuna.load_study(study_name=name, storage=url).set_user_attr("glora_search:format", 99)


def _export_knee(folder: Path, snapshot: Snapshot) -> None:
    """The export of the knee, and one that failed."""
    folder.mkdir(parents=True)
    for number, ready in ((snapshot.knee, True), (snapshot.front[0], False)):
        digest = snapshot.trials[number or 0].candidate.subnet.digest[:16]
        (folder / f"{digest}.log").write_text(f"error: {HOSTILE!a}\n")
        if ready:
            (folder / digest).mkdir()
            told = {"fingerprints": {"supernet": "1234"}}
            (folder / digest / "subnet.json").write_text(json.dumps(told))
