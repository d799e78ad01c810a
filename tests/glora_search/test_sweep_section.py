"""The section [sweep]: its mistakes, what Optuna draws from, and when trials are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from tiny_study import study, study_table

from glora_search.operations.sweeping.recipes import (
    rungs,
    scored_epochs,
    step_of,
    swept_space,
    written_recipe,
)
from glora_search.operations.sweeping.workers import gpus_for
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import parse_study
from glora_search.study.study_file import StudyFile
from glora_search.study.sweep_section import SWEPT, SweepSection


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trails": 3}, "sweep.trails = 3: unknown key; did you mean 'trials'?"),
        ({"trials": 0}, "sweep.trials = 0"),
        ({"concurrent": "many"}, "sweep.concurrent"),
        ({"concurrent": 0}, "sweep.concurrent = 0"),
        ({"lr": 1e-3}, "sweep.lr = 0.001: a list of which each trial takes one, or { low"),
        ({"lr": []}, "sweep.lr = []"),
        ({"lr": [0.0]}, "sweep.lr.0 = 0.0"),
        ({"lr": [1e-3, 1e-3]}, "sweep.lr = [0.001, 0.001]: each choice once"),
        ({"lr": {"low": 1e-3}}, "sweep.lr.high: missing"),
        ({"lr": {"low": 1e-3, "hihg": 1, "high": 1}}, "did you mean 'high'?"),
        ({"lr": {"low": 0.1, "high": 0.1}}, "sweep.lr.high = 0.1: above low = 0.1"),
        ({"weight_decay": {"low": 0.0, "high": 0.1}}, "a log scale has no 0"),
        ({"weight_decay": [-0.1]}, "sweep.weight_decay.0 = -0.1"),
        ({"epochs": [1.5]}, "sweep.epochs.0 = 1.5"),
        ({"epochs": {"low": 0, "high": 5}}, "sweep.epochs.low = 0"),
        ({"grace": 0.0}, "sweep.grace = 0.0"),
        ({"reduction_factor": 1}, "sweep.reduction_factor = 1"),
        ({"gpus_per_trial": 1.5}, "sweep.gpus_per_trial = 1.5: above 1 a whole number"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse_study(study_table(tmp_path, sweep=changes), origin="study.toml")
    head, *lines = str(caught.value).splitlines()
    assert "1 mistake:" in head
    assert len(lines) == 1
    assert told in lines[0]


def test_what_is_swept_is_of_the_supernet(tmp_path: Path) -> None:
    """Under the names of [supernet], so that a recipe can be copied there."""
    supernet = study(tmp_path).supernet
    assert set(SWEPT) <= set(supernet.recipe_fields())
    assert set(SWEPT) <= set(SweepSection.model_fields)


def swept(folder: Path, **keys: Any) -> StudyFile:
    return study(folder, sweep=keys)


def test_lists_and_ranges(tmp_path: Path) -> None:
    file = swept(
        tmp_path,
        lr={"low": 1e-4, "high": 1e-2},
        weight_decay={"low": 0.0, "high": 0.1, "log": False},
        epochs=[5, 20, 10],
    )
    assert swept_space(file) == {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(0.0, 0.1),
        "epochs": CategoricalDistribution([5, 20, 10]),
    }
    file = swept(tmp_path, lr=[1e-3], epochs={"low": 5, "high": 50})
    assert swept_space(file)["lr"] == CategoricalDistribution([1e-3])
    assert swept_space(file)["epochs"] == IntDistribution(5, 50, log=True)


@pytest.mark.parametrize(("whole", "choices"), [(500, [125, 250, 500]), (2, [1, 2]), (1, [1])])
def test_epochs_are_at_most_those_of_the_study(
    tmp_path: Path, whole: int, choices: list[int]
) -> None:
    """Nobody who has said nothing waits for more than has been asked for."""
    file = study(tmp_path, supernet={"epochs": whole})
    assert swept_space(file)["epochs"] == CategoricalDistribution(choices)


def test_the_written_recipe_where_it_is_within_the_ranges(tmp_path: Path) -> None:
    assert written_recipe(study(tmp_path)) == {"lr": 2e-3, "weight_decay": 1e-4, "epochs": 6}
    assert written_recipe(swept(tmp_path, lr={"low": 3e-3, "high": 1e-2})) is None
    assert written_recipe(swept(tmp_path, epochs=[5, 7])) is None


@pytest.mark.parametrize(
    ("grace", "factor", "expected"),
    [(0.25, 2, [25, 50, 100]), (0.1, 3, [10, 30, 90, 100]), (1.0, 2, [100]), (0.5, 2, [50, 100])],
)
def test_trials_are_scored_where_asha_decides(
    grace: float, factor: int, expected: list[float]
) -> None:
    """At the very milestones of Ray's scheduler, for every grace, to the last bit."""
    from ray.tune.schedulers import ASHAScheduler  # slow: not for every process that collects

    section = SweepSection(grace=grace, reduction_factor=factor)
    assert rungs(section) == pytest.approx(expected)
    for percent in range(1, 101):
        section = SweepSection(grace=percent / 100, reduction_factor=factor)
        (bracket,) = ASHAScheduler(
            grace_period=100 * section.grace, reduction_factor=factor, max_t=100
        )._brackets
        milestones = [milestone for milestone, _ in bracket._rungs if milestone < 100]
        assert rungs(section)[:-1] == milestones[::-1]
        assert all(step_of(p) >= p for p in milestones)


def test_percentages_fall_on_epochs() -> None:
    """On the first epoch that reaches them; where two fall together on the later one's."""
    assert scored_epochs(100, [25, 50, 100]) == {25: 25, 50: 50, 100: 100}
    assert scored_epochs(10, [25, 50, 100]) == {3: 25, 5: 50, 10: 100}
    assert scored_epochs(2, [25, 50, 100]) == {1: 50, 2: 100}
    assert scored_epochs(1, [25, 50, 100]) == {1: 100}


@pytest.mark.parametrize(
    ("trials", "gpus", "each"),
    [(2, 0, 0.0), (2, 1, 0.5), (3, 1, 0.3333), (4, 3, 0.5), (2, 3, 1.0), (1, 8, 1.0)],
)
def test_gpus_are_shared_so_that_all_trials_fit(trials: int, gpus: int, each: float) -> None:
    assert gpus_for(trials, gpus) == each
    assert not gpus or gpus * int(1 / each) >= trials
