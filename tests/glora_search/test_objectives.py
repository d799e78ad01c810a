"""Objectives: what they read of an outcome, how they rank, and how several are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from recording_cases import SPACE, batch

from glora_search.operations.status import list_studies
from glora_search.proposing import SearchSettings
from glora_search.recording import Database
from glora_search.study.finalists import ATTRIBUTE, Finalist, to_attribute
from glora_search.study.objectives import BY_LOSS, OBJECTIVES, Objectives
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
    values = [objectives.only.value(outcome) for outcome in ranked]
    known = [value for value in values if value is not None]
    falling = objectives.only.direction == "maximize"
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


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_list_of_studies_shows_the_best(
    name: str, tmp_path: Path, found: list[Outcome]
) -> None:
    url, objectives = f"sqlite:///{tmp_path / 's.db'}", Objectives.of(name)
    complete = [outcome for outcome in found if not outcome.failed]
    best = objectives.only.value(min(complete, key=objectives.rank))
    with Database.open(url, create=True) as database:
        record = database.create_study("one", space=SPACE, objectives=objectives, attributes={})
        with record.hold():
            record.flush(found)
        (listed,) = list_studies(url).studies
        assert (listed.best, listed.best_text) == (best, objectives.only.text(best))
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
        assert objectives.only.value(dear) == objectives.only.value(cheap), "what was measured"
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


def test_a_search_takes_one_objective() -> None:
    assert SearchSettings(objectives=BY_LOSS).objectives.only.name == "loss"
    with pytest.raises(InvalidConfigError, match="a search optimises one objective; got loss,top1"):
        _ = Objectives.of("loss", "top1").only


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
