"""Studies by name: created whole, found, listed, refused."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
import sqlalchemy as sa
from recording_cases import EACH_STORE, LARGE_SPACE, SPACE, STORES, batch

from glora_search.recording import Database, check_study_name
from glora_search.study.errors import (
    DamagedStudyError,
    StorageError,
    StudyExistsError,
    StudyFileError,
    StudyNotFoundError,
)
from glora_search.study.objectives import BY_LOSS, BY_TOP1, Objectives


@pytest.fixture(scope="module", params=EACH_STORE)
def opened(request: pytest.FixtureRequest, module_database_url: str) -> Iterator[Database]:
    with Database(module_database_url, known_schemas=STORES[request.param]) as database:
        yield database


@pytest.fixture
def database(opened: Database) -> Iterator[Database]:
    """An empty database; emptied again, which is cheaper than a new one."""
    yield opened
    for name in names_in_optuna(opened):
        optuna.delete_study(study_name=name, storage=opened._connection.storage)


def create(database: Database, name: str, objectives: Objectives = BY_LOSS) -> None:
    database.create_study(name, space=SPACE, objectives=objectives, attributes={"status": "new"})


def names_in_optuna(database: Database) -> list[str]:
    return optuna.get_all_study_names(database._connection.storage)


def test_a_study_is_found_with_its_space_fitness_and_attributes(database: Database) -> None:
    """The report works from the database alone, without the backbone."""
    made = database.create_study(
        "a.B_c-1", space=LARGE_SPACE, objectives=BY_TOP1, attributes={"seed": 3, "x": {"y": []}}
    )
    for record in (made, database.open_study("a.B_c-1")):
        assert record.name == "a.B_c-1"
        assert record.space == LARGE_SPACE
        assert record.objectives == BY_TOP1
        assert record.attributes == {"seed": 3, "x": {"y": []}}
        assert record.history() == []
        assert record.holder is None


def test_a_name_is_given_once(database: Database) -> None:
    create(database, "a")
    optuna.create_study(study_name="guest", storage=database._connection.storage)
    for name in ("a", "guest"):
        with pytest.raises(StudyExistsError, match=f"study '{name}' exists in"):
            create(database, name)
    assert names_in_optuna(database) == ["a", "guest"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\n", "\u00e4", "x" * 201, "a\x00"]
)
def test_names_that_could_leave_a_folder_are_refused(name: str) -> None:
    with pytest.raises(StudyFileError, match="accepted: 1 to 200 letters"):
        check_study_name(name)


def test_a_refused_name_makes_and_finds_no_study(database: Database) -> None:
    """Not even where somebody gave Optuna such a study by hand."""
    with pytest.raises(StudyFileError):
        create(database, "../a")
    assert names_in_optuna(database) == []
    create(database, "x" * 200)
    guest = optuna.create_study(study_name="../a", storage=database._connection.storage)
    for key, value in database.open_study("x" * 200)._store.attributes().items():
        guest.set_user_attr(key, value)
    with pytest.raises(StudyNotFoundError):
        database.open_study("../a")
    assert [summary.name for summary in database.list_studies()] == ["x" * 200]


def test_a_missing_study_names_the_nearest(database: Database) -> None:
    with pytest.raises(StudyNotFoundError, match="it holds no studies yet"):
        database.open_study("vit-digits")
    optuna.create_study(study_name="vit-digits-guest", storage=database._connection.storage)
    for name in ("vit-digits-1", "resisc", "svhn"):
        create(database, name)
    with pytest.raises(StudyNotFoundError, match=r"nearest: vit-digits-1$"):
        database.open_study("vit-digits")
    with pytest.raises(StudyNotFoundError, match=r"it holds: vit-digits-1, resisc, svhn$"):
        database.open_study("QQQQ")


def test_studies_of_others_are_not_ours(database: Database) -> None:
    optuna.create_study(study_name="guest", storage=database._connection.storage)
    assert database.list_studies() == []
    with pytest.raises(StudyNotFoundError):
        database.open_study("guest")


@pytest.mark.slow
def test_the_list_tells_how_far_each_study_is(database: Database) -> None:
    create(database, "first")
    create(database, "second", BY_TOP1)
    record = database.open_study("second")
    with record.hold() as lease:
        record.set_attribute("status", "running")
        record.flush(batch(0, 8))
        first, second = database.list_studies()
        assert second.holder == lease.holder
    assert (first.name, first.n_complete, first.n_failed) == ("first", 0, 0)
    assert (first.best_value, first.attributes, first.holder) == (None, {"status": "new"}, None)
    assert (second.name, second.n_complete, second.n_failed) == ("second", 7, 1)
    assert (second.objectives, second.attributes) == (BY_TOP1, {"status": "running"})
    assert second.best_value == max(o.top1 for o in batch(0, 8) if not o.failed)


def test_a_creation_that_fails_leaves_no_study(database: Database) -> None:
    """Nothing half-written: the name is free again."""

    def fail(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO study_user_attributes"):
            raise sa.exc.OperationalError(statement, {}, Exception("disk full"))

    sa.event.listen(sa.Engine, "after_cursor_execute", fail)
    try:
        with pytest.raises(StorageError, match="disk full"):
            create(database, "a")
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", fail)
    assert names_in_optuna(database) == []
    create(database, "a")


def test_an_attribute_that_cannot_be_stored_makes_no_study(database: Database) -> None:
    with pytest.raises(StorageError, match="'seed' cannot be stored as JSON"):
        database.create_study("a", space=SPACE, objectives=BY_LOSS, attributes={"seed": {1}})
    assert names_in_optuna(database) == []


@pytest.mark.slow
def test_a_study_that_cannot_be_understood(database: Database) -> None:
    for name, key, value, said in (
        ("a", "format", 2, "study 'a' is stored in format 2; .*update glora-search"),
        ("b", "space", {"layers": []}, "study 'b' is damaged"),
        ("c", "fitness", "speed", "study 'c' is damaged"),
        ("d", "space", None, "study 'd' is damaged"),
        ("e", "space", ["layers"], "study 'e' is damaged"),
    ):
        create(database, name)
        study = optuna.load_study(study_name=name, storage=database._connection.storage)
        study.set_user_attr(f"glora_search:{key}", value)
        with pytest.raises(DamagedStudyError, match=said):
            database.open_study(name)
    create(database, "sound")
    *damaged, sound = database.list_studies()
    assert (sound.name, sound.fault, sound.attributes) == ("sound", None, {"status": "new"})
    assert [study.fault is not None and study.name in study.fault for study in damaged] == [
        True
    ] * 5
    assert not any("\n" in (study.fault or "") for study in damaged)
