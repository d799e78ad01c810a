"""Runs that a second process does while this one is busy with something else."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Self

from glora_search.bench.runs import Run, RunResult
from glora_search.bench.schedule import Ready
from glora_search.study.study_file import StudyFile
from search_spaces import GLoRASearchError

_POLL_S: Final = 0.2


class RunsAhead:
    """Runs of one task that start now, in a process of their own. Used as a context: the process
    ends with it.

    Args:
        runs: In the order in which they are done.
        file: The study of their task. Its backbone must have been trained: else two processes
            would train it.
    """

    def __init__(self, runs: Sequence[Run], file: StudyFile) -> None:
        self._keys = {run.key for run in runs}
        self._file = file
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe(duplex=False)
        self._process = spawning.Process(
            target=_do_all, args=(theirs, tuple(runs), file.to_json()), daemon=True
        )
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.join()

    def results(self, ready: Ready, poll: Callable[[], None]) -> Iterator[RunResult]:
        """The results of all runs; this process does those that the other one was not given.

        Args:
            ready: As in `schedule.run_here`.
            poll: Called a few times a second while it waits; may raise to end the bench.

        Raises:
            GLoRASearchError: The other process has ended before its runs were done.
        """
        from glora_search.bench.execute import execute

        while runs := ready():
            ours = [run for run in runs if run.key not in self._keys]
            theirs_left = len(ours) < len(runs)
            if ours and not (theirs_left and self._pipe.poll()):
                yield execute(ours[0], self._file)
                continue
            while not self._pipe.poll(_POLL_S):
                poll()
            try:
                result: RunResult = self._pipe.recv()
            except EOFError:
                raise GLoRASearchError("the process that compares methods has ended") from None
            yield result


def _do_all(pipe: Connection, runs: tuple[Run, ...], study: str) -> None:
    """What runs in the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    from glora_search.bench.execute import execute
    from glora_search.study.reading import stored_study

    file = stored_study(json.loads(study))
    for run in runs:
        pipe.send(execute(run, file))
