"""Sweeps that do not begin: each one clear line, without a Ray, and nothing is left behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import study, write_study

from glora_search import operations  # which imports Ray Tune when it is asked for a sweep
from glora_search.cluster.connection import disconnect, ray
from glora_search.cluster.submitting import launch_submission
from glora_search.operations.sweeping.comparable import open_or_create
from glora_search.recording import Database, SweepRecord
from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Silent
from glora_search.study.errors import (
    ArtifactError,
    ClusterError,
    StudyExistsError,
    StudyFileError,
    StudyHeldError,
)
from glora_search.study.study_file import StudyFile
from glora_search.study.sweep_trial import SweepTrial
from search_spaces import GLoRASearchError

TRIALS = 3


@pytest.fixture(autouse=True)
def no_ray() -> Iterator[None]:
    """What is refused here is refused before one is started."""
    disconnect()  # whatever other tests have left
    yield
    assert not ray.is_initialized()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def ended(number: int, *, failed: bool) -> SweepTrial:
    trial = SweepTrial(
        id=str(number),
        recipe={"lr": 1e-3, "weight_decay": 1e-4, "epochs": 6},
        state="complete",
        losses={100: 1.0 + number},
        top1=0.5,
        epochs=6,
    )
    if not failed:
        return trial
    return dataclasses.replace(
        trial, state="failed", losses={}, top1=None, error_type="X", error=f"fault {number}"
    )


def swept(file: StudyFile, url: str, *, failed: bool) -> SweepRecord:
    """All trials of a sweep that has been."""
    with Database.open(url, create=True) as database:
        record = open_or_create(database, prepare(file, Silent()))
        with record.study.hold():
            for number in range(file.sweep.trials):
                record.add(ended(number, failed=failed))
        return record


@pytest.mark.slow
def test_no_cluster(tmp_path: Path, url: str) -> None:
    file = study(tmp_path, cluster={"address": "127.0.0.1:1"})
    with pytest.raises(ClusterError, match=r"no Ray at '127\.0\.0\.1:1'"):
        operations.sweep(file, storage=url)
    assert not (tmp_path / "studies.db").exists()


def test_artifacts_are_tried_before_ray(tmp_path: Path, url: str) -> None:
    file = study(tmp_path, cluster={"address": "127.0.0.1:1", "artifacts": "sss://bucket"})
    with pytest.raises(ArtifactError, match="Protocol not known"):
        operations.sweep(file, storage=url)
    assert not (tmp_path / "studies.db").exists()


def test_a_study_that_trains_no_supernet(tmp_path: Path, url: str) -> None:
    file = study(tmp_path, supernet={"checkpoint": "trained.safetensors"})
    with pytest.raises(StudyFileError, match="no recipe to sweep; leave the key out"):
        operations.sweep(file, storage=url)
    assert not (tmp_path / "studies.db").exists()


@pytest.mark.slow
def test_a_sweep_that_is_over(tmp_path: Path, url: str) -> None:
    """It is shown, unless there is nothing to show but faults."""
    file = study(tmp_path, sweep={"trials": TRIALS})
    swept(file, url, failed=False)
    found = operations.sweep(file, storage=url)
    assert list(found.trials) == [0, 1, 2]
    assert found.best is not None
    assert found.best[0] == 0

    other = study(tmp_path, study={"name": "other"}, sweep={"trials": TRIALS})
    swept(other, url, failed=True)
    with pytest.raises(
        GLoRASearchError, match=r"every trial of sweep 'other/sweep' failed.*fault 2"
    ):
        operations.sweep(other, storage=url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"supernet": {"batch_size": 12}}, "supernet.batch_size"),
        ({"supernet": {"warmup_epochs": 1}}, "supernet.warmup_epochs"),
        ({"supernet": {"storage": "entangled"}}, "supernet.storage"),
        ({"space": {"preset": "tiny"}}, "space, "),
        ({"sweep": {"lr": [1e-3]}}, "sweep.lr"),
        ({"sweep": {"grace": 0.5}}, "sweep.grace"),
        ({"sweep": {"subnets": 3}}, "sweep.subnets and parameter limits"),
        ({"search": {"max_params": 1500}}, "sweep.subnets and parameter limits"),
        ({"study": {"seed": 4}}, "study.seed"),
    ],
)
def test_another_study_file(
    tmp_path: Path, url: str, changes: dict[str, dict[str, object]], told: str
) -> None:
    """Trials that could not be compared with those that are there."""
    known = {"trials": TRIALS}
    swept(study(tmp_path, sweep=known), url, failed=False)
    changes = {**changes, "sweep": {**known, **changes.get("sweep", {})}}
    with pytest.raises(StudyExistsError, match=r"begun with another study file.* differs in") as it:
        operations.sweep(study(tmp_path, **changes), storage=url)
    assert told in str(it.value)


@pytest.mark.slow
def test_what_may_differ(tmp_path: Path, url: str) -> None:
    """Where trials run, what is searched afterwards, and the swept keys of [supernet]."""
    known = {"trials": TRIALS, "epochs": [6, 8]}
    swept(study(tmp_path, sweep=known), url, failed=False)
    file = study(
        tmp_path,
        supernet={"lr": 1e-3, "weight_decay": 0.0, "epochs": 7},
        sweep={**known, "concurrent": 5, "cpus_per_trial": 2},
        search={"population": 9},
        cluster={"workers": 3},
    )
    assert len(operations.sweep(file, storage=url).trials) == TRIALS


@pytest.mark.slow
def test_another_process_sweeps(tmp_path: Path, url: str) -> None:
    file = study(tmp_path, sweep={"trials": TRIALS})
    swept(file, url, failed=False)
    with Database.open(url, create=False) as database:
        record = database.open_sweep("tiny")
        with record.study.hold(), pytest.raises(StudyHeldError, match="'tiny/sweep' is driven by"):
            operations.sweep(file, storage=url)


def test_as_a_job(tmp_path: Path) -> None:
    """What the cluster's head runs."""
    path = write_study(tmp_path)
    submission = launch_submission(path, ["sweep.trials=3"], "cluster", verb="sweep")
    assert submission.command.endswith(
        "exec python -m glora_search sweep study.toml --address auto --set sweep.trials=3"
    )
