"""A sweep in the database: an Optuna study like any other, beside those of searches."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from recording_cases import SPACE, batch

from glora_search.cli.sweep_tables import sweep_output
from glora_search.operations.status import list_studies, sweep_status
from glora_search.recording import Database, SweepRecord
from glora_search.study.errors import (
    DamagedStudyError,
    StudyExistsError,
    StudyHeldError,
    StudyNotFoundError,
)
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import STUDY_NAME
from glora_search.study.sweep_trial import SweepTrial

pytestmark = pytest.mark.slow

SWEPT = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "weight_decay": FloatDistribution(0.0, 0.1),
    "epochs": CategoricalDistribution([5, 10]),
}
HOW = {"train_s": 1.5, "worker": "node-1:4711"}
TRIALS = [
    SweepTrial(
        id="a",
        recipe={"lr": 1e-3, "weight_decay": 0.05, "epochs": 10},
        state="complete",
        losses={25: 1.5, 50: 1.25, 100: 1.125},
        top1=0.5,
        epochs=10,
        **HOW,
    ),
    SweepTrial(
        id="b",
        recipe={"lr": 1e-4, "weight_decay": 0.0, "epochs": 5},
        state="stopped",
        losses={25: 0.5},  # the best so far, but of an unfinished training
        top1=0.75,
        epochs=2,
        **HOW,
    ),
    SweepTrial(
        id="c",
        recipe={"lr": 1e-2, "weight_decay": 0.1, "epochs": 5},
        state="failed",
        error_type="TrainingDivergedError",
        error="the training loss is nan at step 3",
        **HOW,
    ),
    SweepTrial(
        id="d",
        recipe={"lr": 2e-3, "weight_decay": 0.01, "epochs": 5},
        state="complete",
        losses={25: 1.75, 50: 1.5, 100: 1.0},
        top1=0.625,
        epochs=5,
        **HOW,
    ),
]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def record(database: Database) -> SweepRecord:
    """A sweep with the trials above."""
    made = database.create_sweep("cats", space=SPACE, swept=SWEPT, attributes={"planned": 6})
    with made.study.hold():
        for trial in TRIALS:
            made.add(trial)
    return made


def test_what_is_recorded_is_read_again(database: Database, record: SweepRecord) -> None:
    """With `frozen_trials` as Optuna's samplers want it."""
    again = database.open_sweep("cats")
    assert again.trials() == dict(enumerate(TRIALS))
    assert again.study.attributes["planned"] == 6
    assert [trial.state for trial in again.frozen_trials()] == [
        *(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE)
    ]


def test_optuna_reads_it(record: SweepRecord, database_url: str) -> None:
    """As its dashboard does: parameters with their ranges, intermediate values, the best."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    study = optuna.load_study(study_name="cats/sweep", storage=url)
    assert study.best_trial.number == 3, "one that trained to its end"
    assert study.best_value == 1.0
    assert study.trials[0].distributions == SWEPT
    assert study.trials[0].intermediate_values == {25: 1.5, 50: 1.25, 100: 1.125}
    assert study.trials[1].value == 0.5
    assert study.trials[2].user_attrs["error_type"] == "TrainingDivergedError"
    started, ended = study.trials[0].datetime_start, study.trials[0].datetime_complete
    assert started is not None
    assert ended is not None
    assert (ended - started).total_seconds() == pytest.approx(1.5)


def test_no_study_can_be_called_so(database: Database, record: SweepRecord) -> None:
    """A sweep is no study, and a study of a name that looks like one is another thing."""
    assert not STUDY_NAME.fullmatch(record.name)
    assert database.list_studies() == []
    with pytest.raises(StudyNotFoundError):
        database.open_study("cats/sweep")
    with pytest.raises(StudyNotFoundError, match="nearest: cats/sweep"):
        database.open_study("cats")
    database.create_study("cats", space=SPACE, objectives=BY_LOSS, attributes={})
    database.create_study("cats.sweep", space=SPACE, objectives=BY_LOSS, attributes={})
    assert [study.name for study in database.list_studies()] == ["cats", "cats.sweep"]
    assert [sweep.name for sweep in database.list_sweeps()] == ["cats/sweep"]
    with pytest.raises(StudyNotFoundError, match=r"no sweep of a study 'cats\.sweep'"):
        database.open_sweep("cats.sweep")


def test_one_process_writes(database: Database, record: SweepRecord) -> None:
    with pytest.raises(StudyHeldError, match="not held"):
        record.add(TRIALS[0])
    with record.study.hold():
        other = database.open_sweep("cats")
        with pytest.raises(StudyHeldError), other.study.hold():
            pass
        assert database.list_sweeps()[0].held_by is not None
    assert database.list_sweeps()[0].held_by is None


def test_a_trial_that_was_committed_without_an_answer(record: SweepRecord) -> None:
    """It is offered again, and recorded once."""
    with record.study.hold():
        record.add(TRIALS[1])
    assert record.trials() == dict(enumerate(TRIALS))


def test_a_name_is_given_once(database: Database, record: SweepRecord) -> None:
    with pytest.raises(StudyExistsError):
        database.create_sweep("cats", space=SPACE, swept=SWEPT, attributes={})


def test_a_trial_that_somebody_damaged(record: SweepRecord, database_url: str) -> None:
    """It is an error of one line; trials that somebody added are left alone."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    study = optuna.load_study(study_name="cats/sweep", storage=url)
    study.add_trial(optuna.trial.create_trial(value=0.1))
    assert record.trials() == dict(enumerate(TRIALS))
    study.add_trial(optuna.trial.create_trial(value=0.1, user_attrs={"id": "x"}))
    with pytest.raises(DamagedStudyError, match="'cats/sweep', trial 5 is damaged"):
        record.trials()
    assert list_studies(database_url).to_json() == [], "the list is not lost with it"


def test_status_shows_it_beside_studies(
    database: Database, record: SweepRecord, database_url: str
) -> None:
    study = database.create_study("cats", space=SPACE, objectives=BY_LOSS, attributes={})
    with study.hold():
        study.flush(batch(0, 3))
    by_name = {d["study"]: d for d in list_studies(database_url).to_json()}
    assert by_name["cats"]["evaluated"] == 3
    shown = by_name["cats/sweep"]
    assert (shown["evaluated"], shown["failed"], shown["planned"]) == (3, 1, 6)
    assert shown["best"] == 1.0


def test_the_table_has_the_best_first(record: SweepRecord, database_url: str) -> None:
    """Those that trained to their end go before what was stopped, however low its loss was."""
    summary = sweep_output(sweep_status("cats", database_url))
    assert [row[0] for row in summary.rows] == ["3", "0", "1", "2"]
    assert summary.document["best"]["trial"] == 3
    assert summary.document["set"] == [
        *("supernet.lr=0.002", "supernet.weight_decay=0.01", "supernet.epochs=5")
    ]
    told = sweep_output(record.summary(), ["glora-search", "launch", "my study.toml"]).lines
    assert (
        "launch    glora-search launch 'my study.toml' --set supernet.lr=0.002 "
        "--set supernet.weight_decay=0.01 --set supernet.epochs=5"
    ) in told
    assert any("trial 2 failed: TrainingDivergedError: the training loss" in line for line in told)
