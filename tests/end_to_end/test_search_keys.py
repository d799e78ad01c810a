"""Keys of [search] that are off by default, each in a whole study on tiny networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny_study import found, study

from glora_search.operations.launching import SearchResult, launch
from glora_search.recording import Database
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome

pytestmark = pytest.mark.slow


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def launched(folder: Path, **search: Any) -> SearchResult:
    folder.mkdir(exist_ok=True)
    return launch(study(folder, search=search), storage=storage(folder))


def recorded(folder: Path) -> tuple[dict[int, Outcome], dict[str, Any], Objectives]:
    with Database.open(storage(folder), create=False) as database:
        record = database.open_study("tiny")
        return record.trials(), record.attributes, record.objectives


def optunas_values(folder: Path) -> dict[int, float | None]:
    trials = optuna.load_study(study_name="tiny", storage=storage(folder)).trials
    return {trial.number: trial.value for trial in trials}


def test_a_fitness_with_a_temperature_and_a_price(tmp_path: Path) -> None:
    """The values in the database are the fitness, and the best of them is exported."""
    result = launched(tmp_path, fitness="calibrated-loss", size_price=0.2, max_params=1_500)
    trials, _, objectives = recorded(tmp_path)
    assert len(trials) == 24
    for outcome in trials.values():
        assert outcome.calibrated_loss <= outcome.loss
        assert outcome.candidate.price == 0.2 * outcome.candidate.n_params / 1_500
    assert any(outcome.calibrated_loss < outcome.loss for outcome in trials.values())
    values = {n: o.calibrated_loss + o.candidate.price for n, o in trials.items()}
    assert optunas_values(tmp_path) == values
    assert result.export.trial == min(values, key=lambda number: objectives.rank(trials[number]))
    assert values[result.export.trial] == min(values.values())
    assert found(result.outcomes) == found(sorted(trials.values(), key=lambda o: o.candidate.place))
