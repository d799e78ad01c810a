"""The contract of StudyStore: one suite over both stores and both kinds of databases.

What is written is also looked at through `optuna.load_study`, the judge of what an Optuna study is.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from recording_cases import EACH_STORE, LARGE_SPACE, SPACE, STORES, batch, outcome

from glora_search.recording import Database, StudyRecord, read_layers
from glora_search.recording.trial_codec import encode
from glora_search.study.errors import StorageError, StudyHeldError
from glora_search.study.fronts import front
from glora_search.study.objectives import BY_LOSS, BY_LOSS_AND_PARAMS, BY_TOP1, Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError, LayerSpec, SearchSpace, SubnetConfig


@pytest.fixture(scope="module", params=EACH_STORE)
def database(request: pytest.FixtureRequest, module_database_url: str) -> Iterator[Database]:
    with Database(module_database_url, known_schemas=STORES[request.param]) as opened:
        yield opened


@pytest.fixture(scope="module")
def other_database(database: Database, module_database_url: str) -> Iterator[Database]:
    """The same database through the other store."""
    other = STORES["public" if database.writes_tables else "tables"]
    with Database(module_database_url, known_schemas=other) as opened:
        yield opened


@pytest.fixture
def record(database: Database) -> StudyRecord:
    return study(database)


def study(
    database: Database, *, space: SearchSpace = SPACE, objectives: Objectives = BY_LOSS
) -> StudyRecord:
    return database.create_study(
        uuid.uuid4().hex, space=space, objectives=objectives, attributes={"status": "new"}
    )


def loaded(record: StudyRecord, url: str) -> optuna.Study:
    return optuna.load_study(study_name=record.name, storage=url.replace("ql:", "ql+psycopg:"))


def by_place(outcomes: list[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda o: o.candidate.place)


def test_both_stores_are_under_test(database: Database, request: pytest.FixtureRequest) -> None:
    """The suite would prove little if both parameters meant the same store."""
    assert database.writes_tables is ("tables" in request.node.callspec.id)


def test_history_returns_what_was_flushed_sorted(record: StudyRecord) -> None:
    first, second = batch(0, 8)[4:], batch(1, 8)[4:]
    with record.hold():
        assert record.flush(second[2:] + first[:3]) == 5
        assert record.flush([]) == 0
        assert record.flush(second[:2] + first[3:]) == 3
    assert record.history() == first + second
    assert any(o.failed for o in record.history())


def test_a_reader_asks_for_what_is_new(record: StudyRecord) -> None:
    """From a number on; and how much was evaluated lately, which includes failures."""
    flushed = batch(0, 8)[4:]
    with record.hold():
        record.flush(flushed)
        assert list(record.trials(2)) == [2, 3]
        assert record.trials(4) == {}
    assert list(record.trials(2).values()) == flushed[2:]
    seconds: dict[str, float] = {}
    for each in flushed:
        seconds[each.worker] = seconds.get(each.worker, 0.0) + each.eval_s
    assert len(seconds) > 1
    assert record.evaluation_s(3600) == pytest.approx(seconds)
    assert record.evaluation_s(-3600) == {}


def test_a_study_is_deleted_with_all_its_rows(database: Database, module_database_url: str) -> None:
    """Another study keeps its own; one that is held is not deleted."""
    gone, kept = study(database), study(database)
    for each in (gone, kept):
        with each.hold():
            each.flush(batch(0, 3))
    with gone.hold(), pytest.raises(StudyHeldError):
        database.delete(gone.name)
    database.delete(gone.name)
    assert gone.name not in {s.name for s in database.list_studies()}
    assert len(kept.history()) == 3
    with sa.create_engine(module_database_url.replace("ql:", "ql+psycopg:")).connect() as c:
        for table in ("trial_params", "trial_values", "trial_user_attributes"):
            orphans = (
                f"SELECT count(*) FROM {table} WHERE trial_id NOT IN (SELECT trial_id FROM trials)"
            )
            assert c.exec_driver_sql(orphans).scalar_one() == 0


@pytest.mark.parametrize("objectives", [BY_LOSS, BY_TOP1, BY_LOSS_AND_PARAMS], ids=str)
def test_optuna_sees_what_was_written(
    database: Database, module_database_url: str, objectives: Objectives
) -> None:
    record = study(database, objectives=objectives)
    flushed = batch(0, 8)[3:]
    before = datetime.now() - timedelta(seconds=1)
    with record.hold():
        record.flush(flushed[:2])
        record.flush(flushed[2:])
    after = datetime.now() + timedelta(seconds=1)

    found = loaded(record, module_database_url)
    directions = [direction.name.lower() for direction in found.directions]
    assert directions == [objective.direction for objective in objectives.each]
    assert [trial.number for trial in found.trials] == list(range(5))
    for trial, expected in zip(found.trials, flushed, strict=True):
        candidate = expected.candidate
        attributes = {
            "generation": candidate.generation,
            "index": candidate.index,
            "operator": candidate.operator,
            "parents": list(candidate.parents),
            "digest": candidate.subnet.digest,
            "n_params": candidate.n_params,
            "eval_s": expected.eval_s,
            "worker": expected.worker,
        }
        if expected.failed:
            assert trial.state is TrialState.FAIL
            assert trial.values is None
            attributes |= {"error_type": expected.error_type, "error": expected.error}
        else:
            assert trial.state is TrialState.COMPLETE
            assert trial.values == [objective.value(expected) for objective in objectives.each]
            attributes |= {
                name: getattr(expected, name) for name in ("loss", "top1", "calibrated_loss")
            }
        assert trial.user_attrs == attributes
        assert list(trial.params.items()) == [
            (gene.name, candidate.subnet.to_params()[gene.name]) for gene in SPACE.genes
        ]
        assert trial.distributions == {
            gene.name: CategoricalDistribution(gene.choices) for gene in SPACE.genes
        }
        assert not trial.system_attrs
        assert not trial.intermediate_values
        assert before < trial.datetime_complete < after
        assert trial.duration.total_seconds() == pytest.approx(expected.eval_s, abs=1e-5)
    best = objectives.first.value(min((o for o in flushed if not o.failed), key=objectives.rank))
    if objectives.are_two:
        assert {t.number for t in found.best_trials} == set(front(record.trials(), objectives))
        assert record.tally().best_value == best
    else:
        assert found.best_value == best


def test_optuna_can_go_on_with_the_study(record: StudyRecord, module_database_url: str) -> None:
    """Choices must be recorded as Optuna's own samplers would, or it refuses to add to them."""
    with record.hold():
        record.flush(batch(0, 3))
    found = loaded(record, module_database_url)
    found.optimize(
        lambda trial: len([trial.suggest_categorical(g.name, g.choices) for g in SPACE.genes]),
        n_trials=1,
    )
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]


def test_the_other_store_reads_and_continues(
    record: StudyRecord, other_database: Database, module_database_url: str
) -> None:
    other = other_database.open_study(record.name)
    first, second = batch(0, 7)[4:], batch(1, 7)[4:]  # the last ones failed
    with record.hold():
        record.flush(first[:2])
        with pytest.raises(StudyHeldError), other.hold():
            pass
    with other.hold():
        assert other.flush(first) == 1
        assert other.flush(second[:2]) == 2
    with record.hold():
        assert record.flush(second) == 1
    assert record.history() == other.history() == first + second
    assert record.trials() == other.trials()
    assert record.tally() == other.tally()
    assert record.attributes == other.attributes
    assert list(record.trials()) == list(range(6))
    assert [trial.number for trial in loaded(record, module_database_url).trials] == list(range(6))


def test_a_place_is_recorded_once(record: StudyRecord) -> None:
    """An interrupted search offers again what it does not know to be recorded."""
    flushed = batch(0, 5)
    again = [replace(o, eval_s=o.eval_s + 1, worker="elsewhere:1") for o in flushed]
    with record.hold():
        assert record.flush(flushed[:3]) == 3
        assert record.flush([*again, flushed[4]]) == 2
        assert record.flush(flushed) == 0
    assert record.history() == flushed[:3] + again[3:]


def test_another_subnet_at_a_recorded_place_is_refused_with_its_batch(record: StudyRecord) -> None:
    """The search is a pure function of seed and evaluations: something else is going on."""
    with record.hold():
        record.flush(batch(0, 2))
        with pytest.raises(StorageError, match="generation 0, index 1 is recorded as subnet"):
            record.flush([outcome(0, 7), outcome(0, 1, salt=1)])
        with pytest.raises(StorageError, match="generation 1, index 0 is recorded as subnet"):
            record.flush([outcome(1, 0), outcome(1, 0, salt=1)])
    assert record.history() == batch(0, 2)


def test_an_outcome_that_cannot_be_recorded_refuses_the_batch(record: StudyRecord) -> None:
    with record.hold(), pytest.raises(StorageError, match="index 1: loss must be a finite number"):
        record.flush([outcome(0, 0), replace(outcome(0, 1), loss=float("nan"))])
    assert record.history() == []


def test_a_subnet_of_another_space_refuses_the_batch(record: StudyRecord) -> None:
    with record.hold(), pytest.raises(InvalidConfigError):
        record.flush([outcome(0, 0), outcome(0, 1, space=LARGE_SPACE)])
    assert record.history() == []


def test_the_order_of_layers_does_not_matter(record: StudyRecord) -> None:
    """A subnet is its choices; a column of the dashboard is a gene, in the order of the space."""
    given = outcome(0, 0)
    layers = dict(reversed(given.candidate.subnet.layers.items()))
    turned = replace(given, candidate=replace(given.candidate, subnet=SubnetConfig(layers)))
    with record.hold():
        record.flush([turned])
    assert record.history() == [given]


def test_trials_of_others_are_left_alone(record: StudyRecord, module_database_url: str) -> None:
    """A person may try something in the same study; their trials are not the search's."""
    guest = loaded(record, module_database_url)
    with record.hold():
        record.flush(batch(0, 2))
        guest.add_trial(optuna.create_trial(value=-1.0))
        guest.ask()
        record.flush(batch(0, 4))
    assert record.history() == batch(0, 4)
    assert list(record.trials()) == [0, 1, 4, 5]
    assert record.tally().n_complete == 4
    assert record.tally().best_value == min(o.loss for o in batch(0, 4))
    assert record.values() == [o.loss for o in batch(0, 4)]
    assert [trial.number for trial in guest.trials] == list(range(6))


def test_trials_that_others_wrote_in_another_order_are_read_right(
    record: StudyRecord, module_database_url: str
) -> None:
    """The database hands the parameters of a trial over in its own order, or in the writer's."""
    given = [o for o in batch(0, 8) if not o.failed]
    with record.hold():
        record.flush(given[:2])
    guest = loaded(record, module_database_url)
    for number, expected in enumerate(given[2:]):
        params = list(expected.candidate.subnet.to_params().items())
        random.Random(number).shuffle(params)
        params.insert(number, ("a parameter of somebody else's", "x"))
        choices = {gene.name: gene.choices for gene in SPACE.genes}
        guest.add_trial(
            optuna.create_trial(
                value=expected.loss,
                params=dict(params),
                distributions={
                    name: CategoricalDistribution(choices.get(name, ("w", "x")))
                    for name, _ in params
                },
                user_attrs={**encode(expected), 'somebody else\'s "note"': {"x": [1]}},
            )
        )
    assert record.history() == given


@pytest.mark.slow
def test_genes_may_have_more_choices_than_there_are_digits(
    database: Database, module_database_url: str
) -> None:
    """The fast store writes a choice as one character, whatever it counts."""
    ranks = tuple(f"lora_{r}" for r in range(1, 131))
    choices = {"A": ranks, "B": ("none", *ranks), "C": ("none",), "D": ("none",), "E": ("vector",)}
    space = SearchSpace([LayerSpec("\u00fc.fc \"1'", 8, 8, bias=True)], choices)
    given = [o for o in batch(0, 30, space=space) if not o.failed]
    record = study(database, space=space)
    with record.hold():
        record.flush(given)
    assert record.history() == given
    for trial, expected in zip(loaded(record, module_database_url).trials, given, strict=True):
        assert trial.params == expected.candidate.subnet.to_params()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "DELETE FROM trial_params WHERE trial_id = {} AND param_name = 'blocks.0.attn.qkv.C'",
            "lacks the parameter 'blocks.0.attn.qkv.C'",
        ),
        ("DELETE FROM trial_params WHERE trial_id = {}", "lacks the parameter"),
        (
            "UPDATE trial_params SET param_value = 77 "
            "WHERE trial_id = {} AND param_name = 'blocks.0.attn.qkv.C'",
            "parameter 'blocks.0.attn.qkv.C' is none of the gene's choices",
        ),
        (
            "UPDATE trial_params SET param_value = -1e30 "
            "WHERE trial_id = {} AND param_name = 'blocks.0.attn.qkv.E'",
            "parameter 'blocks.0.attn.qkv.E' is none of the gene's choices",
        ),
        (
            "UPDATE trial_user_attributes SET value_json = '[' "
            "WHERE trial_id = {} AND key = 'parents'",
            "Expecting",
        ),
    ],
)
def test_damage_is_told_trial_by_trial(module_database_url: str, statement: str, said: str) -> None:
    """What the fast store reads as one text has been some hundred rows, any of which may be off."""
    with Database(module_database_url) as database:
        record = study(database)
        with record.hold():
            record.flush(batch(0, 2))
        trial_id = loaded(record, module_database_url).trials[1]._trial_id
        engine = sa.create_engine(module_database_url.replace("ql:", "ql+psycopg:"))
        with engine.begin() as connection:
            connection.exec_driver_sql(statement.format(trial_id))
        engine.dispose()
        with pytest.raises(StorageError, match=rf"trial 1 is damaged: .*{said}"):
            record.history()


@pytest.mark.parametrize("objectives", [BY_LOSS, BY_TOP1], ids=str)
def test_tally_and_best_agree_with_history(database: Database, objectives: Objectives) -> None:
    record = study(database, objectives=objectives)
    assert (record.tally().n_complete, record.tally().best_value) == (0, None)
    assert record.best() is None
    with record.hold():
        record.flush([outcome(0, 6)])
        assert (record.tally().n_complete, record.tally().n_failed) == (0, 1)
        assert record.best() is None
        record.flush(batch(0, 3))
    complete = batch(0, 3)
    assert record.values() == [objectives.each[0].value(o) for o in complete], "in their order"
    tally = record.tally()
    assert (tally.n_complete, tally.n_failed) == (3, 1)
    assert record.best() == min(complete, key=objectives.rank)
    assert tally.best_value == objectives.first.value(record.best())


@pytest.mark.slow
def test_a_study_with_the_key_of_a_deleted_one_is_counted_anew(
    database: Database, module_database_url: str
) -> None:
    """What was counted is kept, and SQLite gives keys again."""
    tallies = []
    for n in (5, 3):
        record = study(database)
        with record.hold():
            record.flush(batch(0, n))
        found = {s.name: s for s in database.list_studies()}[record.name]
        tallies.append((found.n_complete, found.best_value))
        with Database(module_database_url) as other:  # as another process does
            other.delete(record.name)
    losses = [o.loss for o in batch(0, 5)]
    assert tallies == [(5, min(losses)), (3, min(losses[:3]))]


def test_outlines_are_trials_whose_layers_are_read_when_they_are_needed(
    database: Database, record: StudyRecord
) -> None:
    """240 rows a trial are most of what there is to read, and few subnets are looked into."""
    flushed = batch(0, 8)
    with record.hold():
        record.flush(flushed)
        assert list(record.outlines(6).values()) == flushed[6:]
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        found = record.outlines()
        assert found == record.trials(), "by their digests"
        statements.clear()
        assert [o.candidate.subnet.digest for o in found.values()] == [
            o.candidate.subnet.digest for o in flushed
        ]
        assert not statements
        read_layers(o.candidate.subnet for o in found.values())
        reading = len(statements)
        assert [o.candidate.subnet.layers for o in found.values()] == [
            o.candidate.subnet.layers for o in flushed
        ]
        assert len(statements) == reading <= 2
        assert (reading > 0) is database.writes_tables
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert record.outlines()[3].candidate.subnet.layers == flushed[3].candidate.subnet.layers


def test_attributes_are_kept_and_replaced(record: StudyRecord) -> None:
    value = {"seed": 3, "list": [1.5, None, True], "text": "\u00fc%s{x}'\""}
    record.set_attribute("resolved", value)
    record.set_attribute("status", "running")
    with record.hold():
        record.set_attribute("status", "finished")
    assert record.attributes == {"resolved": value, "status": "finished"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("glora_search:lease", None, "reserved"),
        ("x", float("nan"), "JSON"),
        ("x", object(), "JSON"),
    ],
)
def test_attributes_that_cannot_be(record: StudyRecord, key: str, value: object, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        record.set_attribute(key, value)
    assert record.attributes == {"status": "new"}


def test_a_damaged_trial_is_named(
    database: Database, record: StudyRecord, module_database_url: str
) -> None:
    """A subnet that is not the one that was evaluated must not be exported as if it were."""
    with record.hold():
        record.flush(batch(0, 2))
    trial_id = loaded(record, module_database_url).trials[1]._trial_id
    engine = sa.create_engine(module_database_url.replace("ql:", "ql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE trial_params SET param_value = 1 - param_value WHERE trial_id = {trial_id} "
            "AND param_name = 'blocks.0.attn.qkv.C'"
        )
    engine.dispose()
    schemas = STORES["tables" if database.writes_tables else "public"]
    with Database(module_database_url, known_schemas=schemas) as fresh:  # Optuna has a cache
        damaged = fresh.open_study(record.name)
        with pytest.raises(StorageError, match="trial 1 is damaged: its parameters have"):
            damaged.history()
        with pytest.raises(StorageError, match="trial 1 is damaged: its parameters have"):
            _ = damaged.outlines()[1].candidate.subnet.layers


def test_flushing_and_reading_take_as_many_statements_for_one_trial_as_for_fifty(
    module_database_url: str,
) -> None:
    """The speed of the tables' store, told without a clock."""
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    def count(action: object) -> int:
        statements.clear()
        action()
        return len(statements)

    with Database(module_database_url) as database:
        record = study(database, space=LARGE_SPACE)
        with record.hold():
            first = [outcome(0, 1, space=LARGE_SPACE)]
            record.flush(first)  # under a new lease what is recorded is looked at once
            one = [outcome(0, 0, space=LARGE_SPACE)]
            fifty = [o for o in batch(1, 58, space=LARGE_SPACE) if not o.failed]
            assert len(fifty) == 50
            sa.event.listen(sa.Engine, "before_cursor_execute", note)
            try:
                assert count(lambda: record.flush(one)) == count(lambda: record.flush(fifty)) > 0
                assert count(record.history) == count(record.history) <= 5
            finally:
                sa.event.remove(sa.Engine, "before_cursor_execute", note)
        assert record.history() == one + first + fifty
