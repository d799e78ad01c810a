"""Keys of [search] that are off by default, each in a whole study on tiny networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny_study import found, study

from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.recording import Database
from glora_search.stages import searching, warm_start
from glora_search.study.attributes import SENSITIVITY
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


@pytest.mark.parametrize("kind", ["median-rank", "sensitivity"])
def test_a_warm_start_is_resumed_as_it_began(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the supernet is measured once, and stands in the database."""
    result = launched(tmp_path / "whole", warm_start=kind)
    first = [o.candidate.operator for o in result.outcomes if o.candidate.generation == 0]
    assert first == [kind] * 4 + ["random"] * 4
    _, attributes, _ = recorded(tmp_path / "whole")
    assert (SENSITIVITY in attributes) == (kind == "sensitivity")

    class Stopped(InProcessEvaluator):
        def evaluate(self, candidates: Any) -> Iterator[Outcome]:
            yield from itertools.islice(super().evaluate(candidates), 3)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searching, "InProcessEvaluator", Stopped)
        with pytest.raises(KeyboardInterrupt):
            launched(tmp_path / "parts", warm_start=kind)
    assert len(recorded(tmp_path / "parts")[0]) == 3
    monkeypatch.setattr(warm_start, "sensitivity", None)  # nobody may measure it again
    resumed = resume("tiny", storage=storage(tmp_path / "parts"))
    assert found(resumed.outcomes) == found(result.outcomes)
