"""The steady loop: candidates are made as outcomes arrive; none is lost, none is recorded twice."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import pytest
from known_fitness import outcome_of, vit_space

from glora_search.proposing import SearchSettings, SteadyStateProposer
from glora_search.recording import Database
from glora_search.stages.search_loop import LoopSettings, run_steady_search
from glora_search.study.errors import TooManyFailuresError
from glora_search.study.objectives import BY_LOSS_AND_PARAMS
from glora_search.study.outcomes import Candidate, Outcome

SPACE = vit_space(2)
SETTINGS = SearchSettings(
    mode="steady-state", population=10, generations=3, parents=4, mutations=4, crossovers=4
)
TWO = replace(SETTINGS, objectives=BY_LOSS_AND_PARAMS, warm_start="spread")
LOOP = LoopSettings(max_failures=1, flush_every=4)
N = SETTINGS.n_candidates
ALL_PLACES = [(g, i) for g in range(4) for i in range(10)]


class Table:
    """An evaluator that looks outcomes up, as if several workers evaluated at once.

    Args:
        workers: How many candidates are under way.
        interrupt_after: Raise KeyboardInterrupt when so many outcomes have been given.
        failing: Places whose evaluation fails.
        order: Seed of the order in which outcomes arrive.
    """

    def __init__(
        self,
        *,
        workers: int = 5,
        interrupt_after: int | None = None,
        failing: Sequence[tuple[int, int]] = (),
        order: int = 0,
    ) -> None:
        self.given: list[Outcome] = []
        self.parents_known = True
        self._workers, self._interrupt_after = workers, interrupt_after
        self._failing, self._rng = failing, random.Random(order)

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        supply, under_way = iter(candidates), list[Candidate]()
        while True:
            under_way += islice(supply, self._workers - len(under_way))
            if not under_way:
                return
            if len(self.given) == self._interrupt_after:
                raise KeyboardInterrupt
            candidate = under_way.pop(self._rng.randrange(len(under_way)))
            outcome = outcome_of(SPACE, candidate)
            if candidate.place in self._failing:
                outcome = replace(
                    outcome, loss=None, top1=None, error_type="RuntimeError", error="told to"
                )
            self.given.append(outcome)
            yield outcome

    def close(self) -> None:
        pass


def make_study(url: str, search: SearchSettings = SETTINGS) -> None:
    with Database(url) as database:
        database.create_study("s", space=SPACE, objectives=search.objectives, attributes={})


def drive(
    url: str, evaluator: Table, loop: LoopSettings = LOOP, search: SearchSettings = SETTINGS
) -> list[Outcome]:
    with Database(url) as database:
        record = database.open_study("s")
        with record.hold():
            return run_steady_search(record, SteadyStateProposer(SPACE, search, 1), evaluator, loop)


def recorded(url: str) -> list[Outcome]:
    with Database(url) as database:
        return database.open_study("s").history()


@pytest.mark.slow
def test_a_child_has_parents_that_arrived_before_it_was_made(database_url: str) -> None:
    """Everything is recorded, and nothing is made of what was still under way."""
    make_study(database_url)
    table = Table()
    outcomes = drive(database_url, table)
    assert [o.candidate.place for o in outcomes] == ALL_PLACES
    assert recorded(database_url) == outcomes
    position = {o.candidate.subnet.digest: k for k, o in enumerate(table.given)}
    assert any(o.candidate.parents for o in outcomes)
    for outcome in outcomes:
        mine = position[outcome.candidate.subnet.digest]
        assert all(position[parent] < mine for parent in outcome.candidate.parents)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 13])
def test_interrupted_again_and_again_nothing_is_lost_or_recorded_twice(tmp_path, step: int) -> None:
    """What had arrived stays; what was under way makes room for other candidates."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    evaluated: list[Outcome] = []
    for attempt in range(N):
        table = Table(interrupt_after=step, order=attempt)
        try:
            drive(url, table)
        except KeyboardInterrupt:
            evaluated += table.given
            assert len(recorded(url)) == len(evaluated), "an interruption lost what had arrived"
        else:
            evaluated += table.given
            break
    assert [o.candidate.place for o in recorded(url)] == ALL_PLACES
    assert sorted(evaluated, key=lambda o: o.candidate.place) == recorded(url)
    assert len({o.candidate.subnet.digest for o in evaluated}) == N


@pytest.mark.slow
@pytest.mark.parametrize("search", [SETTINGS, TWO], ids=["one objective", "two objectives"])
def test_one_worker_finds_the_same_whatever_interrupts_it(tmp_path, search: SearchSettings) -> None:
    """The one case in which this mode is a function of the seed."""
    found = []
    for name, steps in (("whole", []), ("pieces", [3, 11, 5])):
        url = f"sqlite:///{tmp_path / name}.db"
        make_study(url, search)
        for step in steps:
            with pytest.raises(KeyboardInterrupt):
                drive(url, Table(workers=1, interrupt_after=step), search=search)
        found.append(drive(url, Table(workers=1), search=search))
    assert found[0] == found[1]


def test_failures_are_borne_up_to_their_limit(tmp_path) -> None:
    """Recorded, not tried again, and counted across a resume, as in the other mode."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make_study(url)
    failing = [(1, 0), (1, 5), (2, 2)]
    with pytest.raises(TooManyFailuresError, match=r"3 .*max_failures is 3; .*told to"):
        drive(url, Table(failing=failing), LoopSettings(max_failures=3))
    assert sum(o.failed for o in recorded(url)) == 3
    outcomes = drive(url, Table(failing=failing), LoopSettings(max_failures=4))
    assert [o.candidate.place for o in outcomes if o.failed] == failing
    assert [o.candidate.place for o in outcomes] == ALL_PLACES
