"""Real sweeps: Ray Tune, Optuna and ASHA over trainings of a small transformer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from killing import killing_a_worker
from ray.util.queue import Empty, Queue
from tiny_study import write_study

from glora_search.cli.commands import main
from glora_search.cluster.connection import WorkerPool, connect, disconnect
from glora_search.operations.sweeping.trial import scored_subnets
from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Bar, Silent
from glora_search.stages.training import train_or_load_supernet
from glora_search.study.reading import load_study_file
from glora_search.study.sweep_trial import SweepTrial
from supernet import evaluate_subnets

HOPELESS, GOOD, DIVERGING = 1e-6, 1e-2, 1e38


@pytest.fixture(scope="module", autouse=True)
def connected(shared_ray: str) -> Iterator[None]:
    """All sweeps here run on the shared Ray."""
    connect(shared_ray, WorkerPool(workers=2))
    yield
    disconnect()


class Impatient(Silent):
    """Somebody who presses Ctrl-C when so many trials are told."""

    def __init__(self, trials: int) -> None:
        self.trials = trials

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        yield self if what == "sweeping" else Silent()

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        if done == self.trials:
            os.kill(os.getpid(), signal.SIGINT)


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in `tmp_path`, in this process; interrupted after so many trials."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLORA_SEARCH_STORAGE", raising=False)

    def run_command(*words: str, interrupted_after: int = 0) -> Ended:
        monkeypatch.setattr(sys, "argv", ["glora-search", *words])
        monkeypatch.setattr(
            "glora_search.cli.progress_bars.for_stderr", lambda: Impatient(interrupted_after or -1)
        )
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        shown = capsys.readouterr()
        return Ended(status, shown.out, shown.err)

    return run_command


def one_trial_at_a_time(get: Callable[[Queue], Any]) -> Callable[[Queue], Any]:
    """A queue seems empty behind every trial that has ended: a fourth one may have, before the
    third is told, and the seed of what comes depends on how many there are.
    """
    had_one = False

    def get_one(queue: Queue) -> Any:
        nonlocal had_one
        if had_one:
            had_one = False
            raise Empty
        news = get(queue)
        had_one = isinstance(news, SweepTrial)
        return news

    return get_one


def test_interrupted_and_continued(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after three trials; the rest of them by the same command, with SIGKILL of a worker.
    One recipe diverges, and what learns nothing is stopped. The best recipe gives `launch` the
    supernet that was scored.
    """
    write_study(
        tmp_path,
        supernet={"epochs": 8, "lr": GOOD, "batch_size": 12},
        sweep={
            "trials": 8,
            "concurrent": 1,  # so that the seed decides what comes
            "subnets": 3,
            "lr": [HOPELESS, GOOD, DIVERGING],
            "weight_decay": {"low": 1e-5, "high": 1e-1},
            "epochs": [4, 8],
        },
    )
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "get_nowait", one_trial_at_a_time(Queue.get_nowait))
        ended = run("sweep", "study.toml", interrupted_after=3)
    assert ended.status == 130
    assert "trials recorded: 3. The same command goes on" in ended.err
    url = f"sqlite:///{tmp_path / 'glora-search.db'}"
    before = optuna.load_study(study_name="tiny/sweep", storage=url).trials
    assert len(before) == 3
    assert before[0].params == {"lr": GOOD, "weight_decay": 1e-4, "epochs": 8}, "as it is written"
    (listed,) = json.loads(run("status", "--json").out)
    assert (listed["study"], listed["status"], listed["held_by"]) == (
        "tiny/sweep",
        "sweeping",
        None,
    )

    with killing_a_worker("ImplicitFunc.train") as killed:
        ended = run("sweep", "study.toml", "--json")
    assert ended.status == 0, ended.err
    assert killed, "it was over before anybody was killed"
    trials = optuna.load_study(study_name="tiny/sweep", storage=url).trials
    assert len(trials) == 8
    assert trials[:3] == before
    told = json.loads(ended.out)
    assert {t["trial"] for t in told["trials"]} == set(range(8))
    states = {t["trial"]: (t["lr"], t["state"], t["epochs_trained"]) for t in told["trials"]}
    for number, (lr, state, trained) in states.items():
        epochs = trials[number].params["epochs"]
        if lr == DIVERGING:
            assert (state, trained) == ("failed", 0)
            assert trials[number].user_attrs["error_type"] == "TrainingDivergedError"
        elif lr == HOPELESS:
            assert (state, trained) == ("stopped", epochs // 4)
        else:
            assert state == "stopped" or trained == epochs
    assert {lr for lr, _, _ in states.values()} == {HOPELESS, GOOD, DIVERGING}
    assert trials[told["best"]["trial"]].value == told["best"]["loss"]
    assert sorted(trials[0].intermediate_values) == [25, 50, 100]

    words = [part for word in told["set"] for part in ("--set", word)]
    assert loss_of_launch(tmp_path, words[1::2]) == told["best"]["loss"]
    again = run("sweep", "study.toml", "--json")
    assert json.loads(again.out)["trials"] == told["trials"], "nothing is left to do"
    other = run(
        "sweep", "study.toml", "--set", "supernet.drop_path=0.2", "--set", "sweep.subnets=2"
    )
    assert other.status == 1
    assert "another study file, which differs in supernet.drop_path, sweep.subnets" in other.err
    more = run("sweep", "study.toml", "--set", "data.n_train=40")
    assert more.status == 1
    assert "the train split" in more.err


def loss_of_launch(folder: Path, overrides: list[str]) -> float:
    """The mean val loss of the subnets of a sweep, of the supernet that `launch` trains."""
    materials = prepare(load_study_file(folder / "study.toml", overrides), Silent())
    subnets = scored_subnets(materials)
    supernet = train_or_load_supernet(materials, Silent())
    found = evaluate_subnets(supernet, subnets, materials.val)
    return round(sum(each.loss for each in found) / len(found), 6)
