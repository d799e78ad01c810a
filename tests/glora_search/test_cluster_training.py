"""The supernet trains on Ray workers: the same weights, whatever becomes of the workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import killing_a_worker
from tiny_study import study
from torch import Tensor
from training_by_hand import train_by_hand

from glora_search.cluster import training_run
from glora_search.cluster.connection import WorkerPool, connect, disconnect
from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Bar, Silent
from glora_search.stages.training import train_or_load_supernet
from supernet import Recipe, Supernet
from supernet.errors import TrainingDivergedError

KNOWN = {"epochs": 6, "threads": 1, "batch_size": 12}


@pytest.fixture(scope="module", autouse=True)
def connected(shared_ray: str) -> Iterator[None]:
    """All tests here run on the shared Ray."""
    connect(shared_ray, WorkerPool(workers=2))
    yield
    disconnect()


class Watched(Silent):
    """Progress that remembers the epochs it was told of."""

    def __init__(self) -> None:
        self.told: list[int] = []

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        yield self

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        if "loss" in note:
            self.told.append(done)


def trained(folder: Path, progress: Silent | None = None, **supernet: Any) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    cluster = {"artifacts": str(folder / "kept")}
    file = study(folder, supernet={**KNOWN, **supernet}, cluster=cluster)
    made = train_or_load_supernet(prepare(file, Silent()), progress or Silent())
    return {name: tensor.clone() for name, tensor in made.trainable_state().items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_one_worker_trains_as_none_does(tmp_path: Path) -> None:
    """To the last bit, into the same file: it is the same supernet to a study, also where it is an
    average of weights. On the way what the worker has reached is among the artifacts.
    """
    kept = tmp_path / "one" / "kept"

    class Looking(Watched):
        def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
            super().update(done, note)
            seen.update(path.name for path in kept.rglob("*.training.safetensors"))

    seen: set[str] = set()
    watched = Looking()
    one = trained(tmp_path / "one", watched, workers=1, ema=0.9)
    none = trained(tmp_path / "none", ema=0.9)
    assert not differing(one, none)
    files = [sorted((tmp_path / n / "runs/supernets").iterdir()) for n in ("one", "none")]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert [file.name for file in kept.rglob("*.safetensors")] == [files[0][0].name]
    assert seen == {files[0][0].name.replace(".safetensors", ".training.safetensors")}
    assert watched.told[-1] == 6, "the bar moves"
    assert watched.told == sorted(set(watched.told))


def any_checkpoint(folder: Path) -> bool:
    """Whether one has reached the driver's disk."""
    return any(folder.rglob("*.training.safetensors"))


def test_two_workers_average_and_survive_a_kill(tmp_path: Path) -> None:
    """SIGKILL of a worker in the middle, and what comes out is what a single process gets that
    nobody disturbs, and that adds up the gradients by hand.
    """
    recipe = {"workers": 2, "epochs": 24, "checkpoint_every_s": 0.0, "paths": "uniform"}
    watched = Watched()
    begun = partial(any_checkpoint, tmp_path)
    with killing_a_worker("RayTrainWorker", begun) as killed:
        two = trained(tmp_path, watched, **recipe)
    assert killed, "it was over before anybody was killed"
    assert watched.told[-1] == 24
    file = study(tmp_path, supernet={**KNOWN, **recipe})
    materials = prepare(file, Silent())
    seed = file.study.seed
    storage = file.supernet.storage
    supernet = Supernet(materials.backbone, materials.space, storage=storage, seed=seed)
    expected, _ = train_by_hand(
        supernet, materials.train, Recipe(**file.supernet.recipe_fields()), seed=seed, size=2
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize(("failures", "runs"), [(0, 1), (2, 3), (3, 3)])
def test_a_controller_that_fails_is_started_anew(
    failures: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train's own restarts do not count it, and end with it now and then."""
    from ray.train import ControllerError

    begun: list[int] = []

    def run(*args: Any) -> None:
        begun.append(len(begun))
        if len(begun) <= failures:
            raise ControllerError(RuntimeError("the placement group was removed"))

    monkeypatch.setattr(training_run, "_run_ray_train", run)
    expectation = pytest.raises(ControllerError) if failures == 3 else contextlib.nullcontext()
    with expectation:
        training_run.run_ray_train({}, WorkerPool(workers=1), 0)
    assert len(begun) == runs


def test_what_ends_a_training_is_told_as_it_is(tmp_path: Path) -> None:
    """Once: it would diverge again, however often Ray Train started it anew."""
    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        trained(tmp_path, workers=1, lr=1e38)
