"""Processes that train together: real ones, that talk over gloo, against one that does it all."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fork_server import PROCESSES
from small_networks import DIGITS, EVA, digits, images_for, subnets_of, supernet_of
from torch import Tensor
from training_by_hand import train_by_hand

from supernet import Checkpointing, EpochEnd, Recipe, Supernet, Team, train_supernet
from supernet.errors import CheckpointError, TrainingDivergedError

RECIPE = Recipe(epochs=4, batch_size=8, lr=5e-3, warmup_epochs=2)  # 16, 16 and 8 images a step
STORAGES: tuple[Any, ...] = ("entangled", "separate")


class StopError(Exception):
    """What a test interrupts with."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes: each takes a job, since a job waits for its like in the other."""
    with ProcessPoolExecutor(2, PROCESSES) as made:
        yield made


@pytest.fixture
def both(pool: ProcessPoolExecutor, tmp_path: Path) -> Callable[..., list[Any]]:
    """Call a function in both processes with their team, and give what it returned in each."""

    def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
        meeting = f"file://{tmp_path / uuid.uuid4().hex}"
        jobs = [pool.submit(in_team, meeting, rank, function, *arguments) for rank in (0, 1)]
        return [job.result(timeout=600) for job in jobs]

    return call


def in_team(meeting: str, rank: int, function: Callable[..., Any], *arguments: Any) -> Any:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        return function(Team.of_process_group(), *arguments)
    finally:
        dist.destroy_process_group()


def train(
    team: Team, path: Path | None = None, stop: int | None = None, recipe: Recipe = RECIPE
) -> tuple[dict[str, Tensor], list[EpochEnd], str]:
    """The trained tensors, the epochs, and the error that ended it."""
    supernet, ends = supernet_of(drop_path=0.3), list[EpochEnd]()

    def on_epoch(end: EpochEnd) -> None:
        ends.append(end)
        if end.epoch == stop:
            raise StopError

    kept = None if path is None else Checkpointing(path=path, every_s=0.0, identity={})
    error = ""
    try:
        train_supernet(
            supernet,
            digits()[0],
            recipe,
            seed=0,
            team=team,
            checkpointing=kept,
            on_epoch=on_epoch,
        )
    except (StopError, CheckpointError, TrainingDivergedError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    return {n: t.clone() for n, t in supernet.trainable_state().items()}, ends, error


def from_own_file(team: Team, paths: list[Path]) -> tuple[dict[str, Tensor], list[EpochEnd], str]:
    return train(team, paths[team.rank])


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def by_hand(size: int) -> tuple[dict[str, Tensor], list[float]]:
    return train_by_hand(supernet_of(drop_path=0.3), digits()[0], RECIPE, seed=0, size=size)


@pytest.mark.slow
def test_two_processes_train_as_one_that_averages_by_hand(both: Callable[..., list[Any]]) -> None:
    """Two paths a step: a subnet, images and drop path of its own for each, gradients averaged."""
    (first, ends, _), (second, others, _) = both(train)
    assert not differing(first, second), "the processes drifted apart"
    assert ends == others
    expected, losses = by_hand(2)
    assert [end.loss for end in ends] == pytest.approx(losses, rel=1e-5)
    # AdamW makes a step of lr out of a gradient that is all rounding: float32 to within that.
    for name, tensor in expected.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=2e-5, msg=name)
    alone, _, _ = train(Team())
    assert differing(first, alone), "two processes took the steps of one"
    (again, _, _), _ = both(train)
    assert not differing(first, again), "the same run gave other weights"


def test_a_team_of_one_trains_alone() -> None:
    """The reference above, for one: so it is the same loop whoever runs it, to the last bit."""
    alone, ends, _ = train(Team())
    expected, losses = by_hand(1)
    assert not differing(alone, expected)
    assert [end.loss for end in ends] == pytest.approx(losses)


@pytest.mark.slow
def test_a_team_goes_on_from_its_checkpoint(both: Callable[..., list[Any]], tmp_path: Path) -> None:
    """It is written once and read by all; and no other team may go on from it."""
    path = tmp_path / "unfinished.safetensors"
    (stopped, _, error), _ = both(train, path, 3)
    assert error.startswith("StopError")
    (resumed, ends, _), _ = both(train, path)
    assert [end.epoch for end in ends] == [4]
    (undisturbed, _, _), _ = both(train)
    assert not differing(resumed, undisturbed)
    assert differing(stopped, undisturbed)
    _, _, error = train(Team(), path)
    assert "processes: 2 there, 1 here" in error


@pytest.mark.slow
def test_processes_that_found_different_checkpoints_do_not_start(
    both: Callable[..., list[Any]], tmp_path: Path
) -> None:
    """One has the file and one has not: on from there they would average unlike networks."""
    paths = [tmp_path / "there.safetensors", tmp_path / "missing.safetensors"]
    both(train, paths[0], 2)
    errors = [error for _, _, error in both(from_own_file, paths)]
    assert all("different checkpoints" in error for error in errors)


@pytest.mark.slow
def test_all_stop_where_one_diverges(both: Callable[..., list[Any]]) -> None:
    """The others would wait for it for ever."""
    wild = dataclasses.replace(RECIPE, lr=1e38, warmup_epochs=2)
    errors = [error for _, _, error in both(train, None, None, wild)]
    assert all(error.startswith("TrainingDivergedError") for error in errors)
    assert errors[0] == errors[1]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("architecture", [DIGITS, EVA], ids=["ViT", "EVA"])
def test_what_is_active_is_what_gets_a_gradient(architecture: Any, storage: Any) -> None:
    """Exactly: a parameter left out would drift, one too many would be moved by weight decay."""
    supernet = supernet_of(architecture, storage=storage).train()
    images = images_for(supernet.backbone, 2)
    for subnet in subnets_of(supernet.space, 12):
        supernet.zero_grad(set_to_none=True)
        supernet.set_active_subnet(subnet)
        supernet(images).square().sum().backward()
        given = [n for n, p in supernet.trainable_parameters() if p.grad is not None]
        assert given == names_of(supernet, supernet.active_parameters([subnet]))
    subnets = subnets_of(supernet.space, 2)
    union = {n for s in subnets for n in names_of(supernet, supernet.active_parameters([s]))}
    assert set(names_of(supernet, supernet.active_parameters(subnets))) == union


def names_of(supernet: Supernet, parameters: list[Any]) -> list[str]:
    names = {id(p): name for name, p in supernet.trainable_parameters()}
    return [names[id(p)] for p in parameters]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 7, 24])
def test_the_images_of_a_step_are_shared_out(size: int, n: int) -> None:
    """All are taken, parts differ by one at most, and nobody is left without."""
    batch = torch.arange(n) + 100
    parts = [Team(rank=rank, size=size).share(batch).tolist() for rank in range(size)]
    taken = [index for part in parts for index in part]
    lengths = {len(part) for part in parts}
    assert set(taken) == set(batch.tolist())
    assert len(taken) == max(n, size)
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    assert n < size or taken == batch.tolist()


def test_paths_are_numbered_through() -> None:
    """Every process of every step has a path of its own; alone it is the step."""
    paths = [Team(rank=r, size=3).path(step) for step in range(4) for r in range(3)]
    assert paths == list(range(12))
    assert [path for step in range(4) for path in Team(size=3).paths(step)] == paths
    assert [Team().path(step) for step in range(4)] == [0, 1, 2, 3]
