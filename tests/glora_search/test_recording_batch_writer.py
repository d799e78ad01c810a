"""Batches in the background: nothing waits, nothing is lost, nothing is swallowed.

What writes here is the test, which says when a batch is through; no test depends on time. Events
are waited for with a limit, so that a fault fails and does not hang.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from recording_cases import batch

from glora_search.recording.batch_writer import BatchWriter
from glora_search.study.errors import StorageError
from glora_search.study.outcomes import Outcome

_PATIENCE_S = 120.0
_OUTCOMES = batch(0, 30)


def writer(write: Callable[[list[Outcome]], object], *, every: int = 4) -> BatchWriter:
    return BatchWriter(write, flush_every=every, flush_s=1e9)


def happens(event: threading.Event) -> None:
    assert event.wait(_PATIENCE_S), "it never came to it"


class Notebook:
    """Writes down what it is given; `go_on` says when a batch is through.

    Args:
        failing: Batches, counted from 0, whose first `attempts` raise.
    """

    def __init__(self, *, failing: int = -1, attempts: int = 1, held: bool = False) -> None:
        self.batches: list[list[Outcome]] = []
        self.threads: set[str] = set()
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.tried = threading.Event()
        self._failing, self._left = failing, attempts
        if not held:
            self.go_on.set()

    def __call__(self, outcomes: list[Outcome]) -> None:
        self.begun.set()
        self.threads.add(threading.current_thread().name)
        happens(self.go_on)
        if len(self.batches) == self._failing and self._left:
            self._left -= 1
            self.tried.set()
            raise StorageError("told to")
        self.batches.append(list(outcomes))

    @property
    def written(self) -> list[Outcome]:
        return [outcome for outcomes in self.batches for outcome in outcomes]


@pytest.mark.parametrize("every", [1, 4, 7, 30, 100])
def test_everything_is_written_once_and_in_order(every: int) -> None:
    notebook = Notebook()
    with writer(notebook, every=every) as collecting:
        for outcome in _OUTCOMES:
            collecting.add(outcome)
    assert notebook.written == _OUTCOMES
    assert max(map(len, notebook.batches)) <= every


def test_a_batch_that_is_being_written_holds_nothing_up() -> None:
    """Not before the next one is full as well: then it waits, so that no queue can grow."""
    notebook = Notebook(held=True)
    added = []
    full, over = threading.Event(), threading.Event()

    def search() -> None:
        with writer(notebook) as collecting:
            for outcome in _OUTCOMES[:8]:
                if len(added) == 7:
                    full.set()
                collecting.add(outcome)
                added.append(outcome)
        over.set()

    thread = threading.Thread(target=search)
    thread.start()
    happens(full)  # 4 are being written, 3 have arrived since; the eighth has to wait
    happens(notebook.begun)
    thread.join(0.05)
    assert (len(added), notebook.written) == (7, [])
    notebook.go_on.set()
    happens(over)
    thread.join()
    assert notebook.batches == [_OUTCOMES[:4], _OUTCOMES[4:8]]


def test_a_batch_may_grow_while_the_one_before_it_is_written() -> None:
    """Where the caller allows it: nobody waits, and the database gets fewer, larger batches."""
    notebook = Notebook(held=True)
    with BatchWriter(notebook, flush_every=4, flush_s=1e9, hold_up_at=20) as collecting:
        for outcome in _OUTCOMES[:23]:
            collecting.add(outcome)  # would never return if it waited
        notebook.go_on.set()
    assert [len(written) for written in notebook.batches] == [4, 19]
    assert [o for written in notebook.batches for o in written] == _OUTCOMES[:23]


def test_an_offer_is_taken_only_while_nothing_is_written() -> None:
    """The next generation may take long to propose; waiting here would not make it shorter."""
    notebook = Notebook(held=True)
    with writer(notebook, every=100) as collecting:
        collecting.offer()
        collecting.add(_OUTCOMES[0])
        collecting.offer()
        happens(notebook.begun)
        collecting.add(_OUTCOMES[1])
        collecting.offer()
        notebook.go_on.set()
    assert notebook.batches == [_OUTCOMES[:1], _OUTCOMES[1:2]]


def test_seconds_count_as_well() -> None:
    """Where evaluations are slow, each outcome is written as it arrives."""
    notebook = Notebook()
    with BatchWriter(notebook, flush_every=100, flush_s=0.0) as collecting:
        for outcome in _OUTCOMES[:3]:
            collecting.add(outcome)
    assert notebook.batches == [[outcome] for outcome in _OUTCOMES[:3]]


def test_an_error_is_raised_where_the_next_outcome_arrives() -> None:
    """With its type; what it left, and what came since, is offered once more on the way out."""
    notebook = Notebook(failing=1)
    added = 0
    with pytest.raises(StorageError, match="told to"), writer(notebook) as collecting:  # noqa: PT012
        for outcome in _OUTCOMES:
            if added == 8:
                happens(notebook.tried)
                while not collecting._is_free:
                    time.sleep(0.001)
            collecting.add(outcome)
            added += 1
    assert added == 8
    assert notebook.batches == [_OUTCOMES[:4], _OUTCOMES[4:9]]


def test_an_error_of_the_last_batch_is_raised_at_the_end() -> None:
    notebook = Notebook(failing=1)
    with pytest.raises(StorageError, match="told to"), writer(notebook) as collecting:  # noqa: PT012
        for outcome in _OUTCOMES[:8]:
            collecting.add(outcome)
    assert notebook.written == _OUTCOMES[:8]


def test_an_error_that_stays_is_raised_and_hides_nothing() -> None:
    """The second attempt fails too: its error comes out, with what it interrupted as context."""
    notebook = Notebook(failing=0, attempts=100)
    with pytest.raises(StorageError) as caught, writer(notebook) as collecting:  # noqa: PT012
        collecting.add(_OUTCOMES[0])
        raise KeyboardInterrupt
    assert str(caught.value) == "told to"
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    assert notebook.written == []


def test_an_error_that_was_overcome_on_the_way_out_of_another_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An interrupted search stays an interrupted one: all of it is recorded."""
    notebook = Notebook(failing=0)
    with pytest.raises(KeyboardInterrupt), writer(notebook) as collecting:  # noqa: PT012
        for outcome in _OUTCOMES[:4]:
            collecting.add(outcome)
        raise KeyboardInterrupt
    assert notebook.written == _OUTCOMES[:4]
    assert "second attempt: told to" in caplog.text


def test_an_interruption_waits_until_all_is_written() -> None:
    """The second Ctrl-C of somebody impatient, in the middle of the last write."""

    def write(outcomes: list[Outcome]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        written.extend(outcomes)

    written: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt), writer(write, every=100) as collecting:
        collecting.add(_OUTCOMES[0])
    assert written == _OUTCOMES[:1]


def test_an_interruption_while_a_batch_is_waited_for_loses_nothing() -> None:
    notebook = Notebook(held=True)
    collecting = writer(notebook)

    def interrupt() -> None:
        while len(collecting._arrived) < 4:  # then the second batch waits for the first
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        notebook.go_on.set()

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), collecting:  # noqa: PT012
        for outcome in _OUTCOMES[:7]:
            collecting.add(outcome)
        thread.start()
        collecting.add(_OUTCOMES[7])
        happens(threading.Event())  # the interruption is there before this is over
    thread.join()
    assert notebook.written == _OUTCOMES[:8]
