"""Interruptions while the database works: none gets lost, and none leaves a lock behind."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from recording_cases import SPACE, batch

from glora_search.recording import Database
from glora_search.recording.shielding import shielded
from glora_search.study.objectives import BY_LOSS


def test_an_interruption_waits_for_the_end_of_the_block() -> None:
    """It arrives, and only once the block is through."""
    through = False
    with pytest.raises(KeyboardInterrupt), shielded():  # noqa: PT012 - the block is the point
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        through = True
    assert through


def test_shields_nest_and_put_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), shielded():  # noqa: PT012 - the block is the point
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_is_left_alone() -> None:
    """Handlers can be set in the main thread only; the lease is renewed in another."""
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with shielded():
                pass
        except BaseException as error:  # noqa: BLE001 - told to the test
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert faults == []


def test_interrupted_flushes_leave_whole_batches_and_no_lock(database_url: str) -> None:
    """Ctrl-C at random moments of flushing; after each the next flush goes through at once."""
    rng = random.Random(0)
    with Database(database_url) as database:
        record = database.create_study("s", space=SPACE, objectives=BY_LOSS, attributes={})
        with record.hold():
            interrupted = generation = 0
            while interrupted < 15:
                timer = threading.Timer(rng.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGINT))
                try:
                    timer.start()
                    while True:
                        record.flush(batch(generation, 4))
                        generation += 1
                except KeyboardInterrupt:
                    interrupted += 1
                    timer.join()
                record.flush(batch(generation, 4))  # what a search does on its way out
                generation += 1
        outcomes = record.history()
    places = [outcome.candidate.place for outcome in outcomes]
    assert places == [(g, i) for g in range(generation) for i in range(4)]
