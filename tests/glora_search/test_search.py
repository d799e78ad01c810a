"""The loop: whatever interrupts it, a study ends with the same outcomes, none lost, none twice."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest
from known_fitness import outcome_of, vit_space
from recording_processes import child

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.recording import Database, StudyRecord
from glora_search.recording.store import FREE
from glora_search.stages.search_loop import LoopSettings, run_search
from glora_search.study.errors import StorageError, StudyHeldError, TooManyFailuresError
from glora_search.study.fronts import front
from glora_search.study.objectives import BY_LOSS, BY_LOSS_AND_PARAMS
from glora_search.study.outcomes import Candidate, Outcome

SPACE = vit_space(2)
SETTINGS = SearchSettings(population=10, generations=3, parents=4, mutations=4, crossovers=4)
TWO = replace(SETTINGS, objectives=BY_LOSS_AND_PARAMS, warm_start="spread")
OPTUNAS = replace(TWO, sampler="nsgaii")
LOOP = LoopSettings(max_failures=1, flush_every=4)
N = SETTINGS.n_candidates


class Table:
    """An evaluator that looks outcomes up: in shuffled order, and failing where it is told to.

    Args:
        interrupt_after: Raise KeyboardInterrupt when so many outcomes have been given.
        failing: Places whose evaluation fails.
        shuffle: Seed of the order in which outcomes arrive.
    """

    def __init__(
        self,
        *,
        interrupt_after: int | None = None,
        failing: Sequence[tuple[int, int]] = (),
        shuffle: int = 0,
    ) -> None:
        self.given = 0
        self._interrupt_after, self._failing, self._shuffle = interrupt_after, failing, shuffle

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        arriving = list(candidates)
        random.Random(self._shuffle).shuffle(arriving)
        for candidate in arriving:
            if self.given == self._interrupt_after:
                raise KeyboardInterrupt
            self.given += 1
            outcome = outcome_of(SPACE, candidate)
            if candidate.place in self._failing:
                outcome = replace(
                    outcome, loss=None, top1=None, error_type="RuntimeError", error="told to"
                )
            yield outcome

    def close(self) -> None:
        pass


def make_study(url: str, search: SearchSettings = SETTINGS) -> None:
    with Database(url) as database:
        database.create_study("s", space=SPACE, objectives=search.objectives, attributes={})


def drive(
    url: str,
    evaluator: Table,
    *,
    seed: int = 1,
    loop: LoopSettings = LOOP,
    search: SearchSettings = SETTINGS,
) -> list[Outcome]:
    """Drive the study as launch and resume do, with a database connection of its own."""
    with Database(url) as database:
        record = database.open_study("s")
        proposer = make_proposer(SPACE, search, seed)
        with record.hold():
            return run_search(record, proposer, evaluator, search, loop)


def recorded(url: str) -> list[Outcome]:
    with Database(url) as database:
        return database.open_study("s").history()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    url = f"sqlite:///{tmp_path_factory.mktemp('undisturbed') / 'x.db'}"
    make_study(url)
    return drive(url, Table())


def test_every_generation_is_evaluated_and_recorded(
    database_url: str, undisturbed: list[Outcome]
) -> None:
    """All places of all generations, and the database holds what the loop returned."""
    make_study(database_url)
    outcomes = drive(database_url, Table())
    assert [o.candidate.place for o in outcomes] == [(g, i) for g in range(4) for i in range(10)]
    assert recorded(database_url) == outcomes == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [1, 2, 3])
def test_arrival_order_does_not_matter(tmp_path, shuffle: int, undisturbed: list[Outcome]) -> None:
    """More workers, other speeds: the same outcomes."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    assert drive(url, Table(shuffle=shuffle)) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 7, 13])
def test_interrupted_again_and_again_it_finds_the_same(
    tmp_path, step: int, undisturbed: list[Outcome]
) -> None:
    """Ctrl-C after every few evaluations; what had arrived is never evaluated again."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    evaluated = 0
    for attempt in range(N):
        table = Table(interrupt_after=step, shuffle=attempt)
        try:
            outcomes = drive(url, table)
        except KeyboardInterrupt:
            evaluated += table.given
            assert len(recorded(url)) == evaluated, "an interruption lost what had arrived"
        else:
            evaluated += table.given
            break
    assert evaluated == N
    assert outcomes == recorded(url) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("search", [TWO, OPTUNAS], ids=["ours", "nsgaii"])
def test_two_objectives_interrupted_in_any_order_find_the_same_front(
    tmp_path, search: SearchSettings
) -> None:
    """A front is a set: neither arrival nor interruption may move it, failures included."""
    loop, failing = LoopSettings(max_failures=4, flush_every=3), [(0, 2), (1, 4), (2, 9)]
    fronts = []
    for name, steps in (("whole", []), ("pieces", [3, 9, 14])):
        url = f"sqlite:///{tmp_path / name}.db"
        make_study(url, search)
        for step in steps:
            table = Table(interrupt_after=step, shuffle=step, failing=failing)
            with pytest.raises(KeyboardInterrupt):
                drive(url, table, loop=loop, search=search)
        drive(url, Table(shuffle=len(steps), failing=failing), loop=loop, search=search)
        history = recorded(url)
        assert len(history) == N
        trials = dict(enumerate(history))
        fronts.append([trials[n] for n in front(trials, search.objectives)])
    assert fronts[0] == fronts[1]
    assert len(fronts[0]) > 3


def drive_slowly(pipe: Connection, url: str, seed: int, search: SearchSettings) -> None:
    """Drive the study, telling of every outcome and waiting for word before the next."""

    class Telling(Table):
        def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
            for outcome in super().evaluate(candidates):
                pipe.send(outcome.candidate.place)
                pipe.recv()
                yield outcome

    drive(url, Telling(shuffle=seed), search=search)
    pipe.send("done")


@pytest.mark.slow
@pytest.mark.parametrize("search", [SETTINGS, TWO], ids=["one objective", "two objectives"])
def test_killed_again_and_again_it_finds_the_same(
    database_url: str, tmp_path, search: SearchSettings
) -> None:
    """SIGKILL of the driving process at random outcomes: no flush is lost, nothing is twice."""
    url = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    make_study(url, search)
    undisturbed = drive(url, Table(), search=search)
    make_study(database_url, search)
    rng = random.Random(5)
    kept: list[Outcome] = []
    for attempt in range(30):
        with child(drive_slowly, database_url, attempt, search) as process:
            for _ in range(rng.randrange(7, 18)):
                if process.hear() == "done":
                    break
                process.tell("go on")
            else:
                process.kill()
                now = recorded(database_url)
                assert set(kept) <= set(now), "a flushed outcome is gone"
                kept = now
                continue
        break
    assert attempt > 1, "it was never killed"
    assert recorded(database_url) == undisturbed


def test_a_failure_is_recorded_and_not_tried_again(tmp_path) -> None:
    """The search goes on without it, and a resume leaves it as it is."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    loop = LoopSettings(max_failures=3)
    first = drive(url, Table(failing=[(0, 3), (2, 1)]), loop=loop)
    assert [o.candidate.place for o in first if o.failed] == [(0, 3), (2, 1)]
    again = Table()
    assert drive(url, again, loop=loop) == first
    assert again.given == 0


def test_too_many_failures_end_the_search_with_all_of_them_recorded(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    with pytest.raises(TooManyFailuresError, match=r"3 .*max_failures is 3; .*told to"):
        drive(url, Table(failing=[(1, i) for i in range(9)]), loop=LoopSettings(max_failures=3))
    assert sum(o.failed for o in recorded(url)) == 3


def test_a_resume_bears_no_more_failures_than_a_launch(tmp_path) -> None:
    """What failed before counts, also where nothing fails any more."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    with pytest.raises(KeyboardInterrupt):
        drive(
            url,
            Table(failing=[(0, i) for i in range(10)], interrupt_after=5),
            loop=LoopSettings(max_failures=10),
        )
    again = Table()
    with pytest.raises(TooManyFailuresError, match="5 evaluations failed"):
        drive(url, again, loop=LoopSettings(max_failures=5))
    assert again.given == 1


def test_the_next_generation_is_proposed_and_evaluated_while_the_last_is_written(tmp_path) -> None:
    """Storage is off the critical path: the first batch is through only once generation 1 runs."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    evaluating = threading.Event()

    class Announcing(Table):
        def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
            for outcome in super().evaluate(candidates):
                if outcome.candidate.generation == 1:
                    evaluating.set()
                yield outcome

    with Database(url) as database:
        record = database.open_study("s")
        flush, in_time = record.flush, []

        def slow_flush(outcomes: list[Outcome]) -> int:
            in_time.append(evaluating.wait(30))
            return flush(outcomes)

        record.flush = slow_flush
        loop = LoopSettings(flush_every=10)
        with record.hold():
            outcomes = run_search(
                record, make_proposer(SPACE, SETTINGS, 1), Announcing(), SETTINGS, loop
            )
        assert in_time[0]
        assert record.history() == outcomes
        assert len(outcomes) == N


def test_a_lost_lease_ends_the_search(database_url: str) -> None:
    """Somebody else has taken over: not one more outcome of ours gets in."""
    make_study(database_url)

    class Losing(Table):
        def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
            for outcome in super().evaluate(candidates):
                if self.given == 13:
                    record._store.swap_lease(record._store.read_lease()[0], FREE)
                yield outcome

    with Database(database_url) as database:
        record = database.open_study("s")
        losing = Losing()
        with record.hold(), pytest.raises(StudyHeldError, match="no longer holds it"):
            run_search(record, make_proposer(SPACE, SETTINGS, 1), losing, SETTINGS, LOOP)
        assert losing.given < N
        assert len(record.history()) in (8, 12)


def test_a_study_of_another_seed_is_refused(tmp_path) -> None:
    """Otherwise two searches would be mixed into one study without a word."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    with pytest.raises(KeyboardInterrupt):
        drive(url, Table(interrupt_after=5))
    with pytest.raises(StorageError, match="another seed"):
        drive(url, Table(), seed=2)


@pytest.mark.slow
def test_every_offspring_is_ranked(tmp_path, undisturbed: list[Outcome]) -> None:
    """The winner may come from the last generation: the published loop never ranks it."""
    bests = []
    for seed in range(6):
        url = f"sqlite:///{tmp_path / f'{seed}.db'}"
        make_study(url)
        outcomes = drive(url, Table(), seed=seed)
        record: StudyRecord
        with Database(url) as database:
            record = database.open_study("s")
            best = record.best()
        assert best == min(outcomes, key=BY_LOSS.rank)
        bests.append(best.candidate.generation)
    assert SETTINGS.generations in bests
