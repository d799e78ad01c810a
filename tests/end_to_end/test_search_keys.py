"""Keys of [search] that are off by default, each in a whole study on tiny networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from tiny_study import found, study

from glora_search.bench.runs import Run
from glora_search.bench.searched import search_winner
from glora_search.cli.study_tables import study_output
from glora_search.evaluating.in_process import InProcessEvaluator
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.operations.status import study_status
from glora_search.recording import Database
from glora_search.stages import searching, warm_start
from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Silent
from glora_search.study.attributes import SENSITIVITY
from glora_search.study.finalists import from_attributes
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome
from supernet import evaluate_subnets
from supernet.data import hold_out
from supernet.errors import DataError

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


def test_the_winner_is_the_best_on_images_that_the_search_did_not_see(tmp_path: Path) -> None:
    """Trials carry the figures of the seen part, finalists those of the other; and a bench finds
    the same winner.
    """
    result = launched(tmp_path, holdout=0.25, finalists=6)
    trials, attributes, objectives = recorded(tmp_path)
    seen, held_out = hold_out(result.materials.val, 0.25, seed=3)
    assert (len(seen), len(held_out)) == (45, 15)
    subnets = [outcome.candidate.subnet for outcome in trials.values()]
    on_seen, on_held_out = (
        [(e.loss, e.top1) for e in evaluate_subnets(result.supernet, subnets, split)]
        for split in (seen, held_out)
    )
    assert [(o.loss, o.top1) for o in trials.values()] == on_seen
    assert optunas_values(tmp_path) == {number: o.loss for number, o in trials.items()}
    finalists = from_attributes(attributes)
    best = sorted(trials, key=lambda number: objectives.rank(trials[number]))[:6]
    assert {finalist.trial for finalist in finalists} == set(best)
    numbers = list(trials)
    for finalist in finalists:
        expected = on_held_out[numbers.index(finalist.trial)]
        assert (finalist.loss, finalist.top1, finalist.held_out) == (*expected, 15)
    assert finalists[0].loss == min(finalist.loss for finalist in finalists)
    assert result.export.trial == finalists[0].trial
    assert result.export.val.loss == finalists[0].loss
    assert result.export.val.n_images == 15
    assert result.export.val_in_search is not None
    assert result.export.val_in_search.n_images == 45
    lines = study_output(study_status("tiny", storage(tmp_path))).lines
    assert any("held out" in line and "other than these 15" in line for line in lines)

    section = result.materials.file.supernet
    run = Run(
        task="tiny",
        method="glora-search",
        seed=3,
        lr=section.lr,
        epochs=section.epochs,
        role="final",
    )
    fresh = prepare(result.materials.file, Silent())
    network, n_params, _ = search_winner(run, fresh)
    assert n_params == trials[finalists[0].trial].candidate.n_params
    expected = result.supernet.merge(trials[finalists[0].trial].candidate.subnet).state_dict()
    assert all(torch.equal(network.state_dict()[k], tensor) for k, tensor in expected.items())


def test_a_share_that_holds_out_nothing_ends_a_launch_at_once(tmp_path: Path) -> None:
    """Before the supernet trains."""
    with pytest.raises(DataError, match="holds out 0"):
        launched(tmp_path, holdout=0.001)
    assert not list(tmp_path.rglob("supernet*"))
