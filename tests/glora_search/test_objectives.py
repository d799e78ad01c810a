"""Objectives: what they read of an outcome, how they rank, and how several are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from recording_cases import SPACE, batch

from glora_search.operations.status import list_studies
from glora_search.proposing import SearchSettings
from glora_search.recording import Database
from glora_search.study.finalists import ATTRIBUTE, Finalist, to_attribute
from glora_search.study.objectives import OBJECTIVES, Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    """Outcomes, of which one failed."""
    found = batch(0, 12)
    assert sum(outcome.failed for outcome in found) == 1
    return found


def test_every_objective_has_a_value_unless_the_evaluation_failed(found: list[Outcome]) -> None:
    assert len(OBJECTIVES) >= 3
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        values = [objective.value(outcome) for outcome in found]
        assert [value is None for value in values] == [outcome.failed for outcome in found]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_best_by_rank_has_the_best_value(name: str, found: list[Outcome]) -> None:
    objectives = Objectives.of(name)
    ranked = sorted(found, key=objectives.rank)
    values = [objectives.first.value(outcome) for outcome in ranked]
    known = [value for value in values if value is not None]
    falling = objectives.first.direction == "maximize"
    assert known == sorted(known, reverse=falling)
    assert values[-1] is None


@pytest.mark.parametrize(
    ("name", "best", "text", "again"),
    [
        ("loss", "lowest val loss", "0.4321", 0.4321),
        ("top1", "highest val top-1", "0.8250", 0.825),
        ("params", "lowest adapter parameters", "12,345", None),
        ("calibrated-loss", "lowest calibrated val loss", "0.4000", 0.4),
    ],
)
def test_what_an_objective_is_called(name: str, best: str, text: str, again: float | None) -> None:
    objective = OBJECTIVES[name]
    value = 12_345.0 if again is None else again
    assert (objective.best, objective.text(value), objective.text(None)) == (best, text, "-")
    assert objective.axis_title.startswith(objective.title)
    finalist = Finalist(trial=0, loss=0.4321, top1=0.825, calibrated_loss=0.4)
    assert (objective.measured and objective.measured(finalist)) == again


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_list_of_studies_shows_the_best(
    name: str, tmp_path: Path, found: list[Outcome]
) -> None:
    url, objectives = f"sqlite:///{tmp_path / 's.db'}", Objectives.of(name)
    complete = [outcome for outcome in found if not outcome.failed]
    best = objectives.first.value(min(complete, key=objectives.rank))
    with Database.open(url, create=True) as database:
        record = database.create_study("one", space=SPACE, objectives=objectives, attributes={})
        with record.hold():
            record.flush(found)
        (listed,) = list_studies(url).studies
        assert (listed.best, listed.best_text) == (best, objectives.first.text(best))
        scored = Finalist(trial=0, loss=0.25, top1=0.75, calibrated_loss=0.2)
        with record.hold():
            record.set_attribute(ATTRIBUTE, to_attribute([scored]))
    (listed,) = list_studies(url).studies
    expected = {"loss": 0.25, "top1": 0.75, "params": best, "calibrated-loss": 0.2}
    assert listed.best == expected[name]


def test_several_objectives_are_stored_as_optunas(database_url: str, found: list[Outcome]) -> None:
    """One direction and one value an objective, without any change to the stores."""
    objectives = Objectives.of("loss", "params")
    with Database.open(database_url, create=True) as database:
        record = database.create_study("two", space=SPACE, objectives=objectives, attributes={})
        with record.hold():
            record.flush(found)
        again = database.open_study("two")
        assert again.objectives == objectives
        assert len(again.trials()) == len(found)
        summary = database.list_studies()[0]
        losses = [outcome.loss for outcome in found if outcome.loss is not None]
        assert summary.best_value == min(losses)
    study = optuna.load_study(
        study_name="two", storage=sa.make_url(database_url).render_as_string(hide_password=False)
    )
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    by_digest = {o.candidate.subnet.digest: o for o in found if not o.failed}
    complete = [trial for trial in study.trials if trial.values]
    assert len(complete) == len(by_digest)
    for trial in complete:
        expected = by_digest[trial.user_attrs["digest"]]
        assert trial.values == [expected.loss, expected.candidate.n_params]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_price_makes_every_measured_fitness_worse(
    name: str, tmp_path: Path, found: list[Outcome]
) -> None:
    """And it is part of Optuna's values, so that the database ranks as the search does."""
    objectives = Objectives.of(name)
    priced = [replace(o, candidate=replace(o.candidate, price=0.125)) for o in found]
    worse = {"loss": 0.125, "top1": -0.125, "params": 0.0, "calibrated-loss": 0.125}[name]
    for cheap, dear in zip(found, priced, strict=True):
        value, with_price = objectives.fitness(cheap), objectives.fitness(dear)
        assert objectives.first.value(dear) == objectives.first.value(cheap), "what was measured"
        assert with_price == (None if value is None else pytest.approx(value + worse))
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Database.open(url, create=True) as database:
        record = database.create_study("one", space=SPACE, objectives=objectives, attributes={})
        with record.hold():
            record.flush(priced)
        assert record.history() == priced
    trials = optuna.load_study(study_name="one", storage=url).trials
    values = [trial.value for trial in trials if trial.value is not None]
    assert values == [f for o in priced if (f := objectives.fitness(o)) is not None]


def test_an_outcome_without_the_figure_of_the_fitness_is_refused(found: list[Outcome]) -> None:
    """It would count as failed, and a search would be random without a word."""
    plain = replace(found[0], calibrated_loss=None)
    with pytest.raises(InvalidConfigError, match="index 0 has no calibrated-loss"):
        Objectives.of("calibrated-loss").rank(plain)


@pytest.mark.parametrize("names", [("top1",), ("loss", "params"), ("calibrated-loss", "params")])
def test_a_search_takes_a_measured_objective_and_one_that_is_known_before(
    names: tuple[str, ...],
) -> None:
    assert SearchSettings(objectives=Objectives.of(*names)).objectives.first.name == names[0]


@pytest.mark.parametrize("names", [("params",), ("params", "loss"), ("loss", "top1")])
def test_a_search_refuses_other_objectives(names: tuple[str, ...]) -> None:
    with pytest.raises(
        InvalidConfigError,
        match="has one of loss, top1, calibrated-loss, alone or followed by params; got",
    ):
        SearchSettings(objectives=Objectives.of(*names))


@pytest.mark.parametrize(
    ("excluded", "message"),
    [
        ({"sampler": "tpe"}, "the sampler tpe needs one objective; got loss,params"),
        ({"surrogate": "ridge"}, "a surrogate needs one objective"),
        ({"diversity": 2}, "diversity needs one objective"),
        ({"size_price": 0.1}, "size_price needs one objective"),
    ],
)
def test_what_makes_one_figure_of_two_objectives_is_refused(
    excluded: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        SearchSettings(objectives=Objectives.of("loss", "params"), **excluded)


def test_costs_are_lower_where_an_objective_is_better(found: list[Outcome]) -> None:
    """All that sorts by two objectives takes them from here."""
    fine = next(outcome for outcome in found if not outcome.failed)
    assert fine.top1 is not None
    assert Objectives.of("top1", "params").costs(fine) == (-fine.top1, fine.candidate.n_params)
    failed = next(outcome for outcome in found if outcome.failed)
    assert Objectives.of("top1", "params").costs(failed) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "one or more objectives, each once; got none"),
        (("loss", "loss"), "each once; got loss,loss"),
        (
            ("latency",),
            "unknown objective 'latency'; accepted: loss, top1, params, calibrated-loss",
        ),
    ],
)
def test_wrong_objectives_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Objectives.of(*names)
