"""Where runs happen: one after the other in this process, or side by side as tasks of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from glora_search.bench.runs import Run, RunResult
from glora_search.study.errors import one_line
from glora_search.study.study_file import StudyFile

Ready = Callable[[], list[Run]]
"""Runs that can start now, in the order in which they should."""


def run_here(ready: Ready, files: Mapping[str, StudyFile]) -> Iterator[RunResult]:
    """The results of all runs, each before the next one starts.

    Args:
        ready: Asked again after each result, which the caller has recorded by then.
        files: Task to its study.
    """
    from glora_search.bench.execute import execute

    while runs := ready():
        yield execute(runs[0], files[runs[0].task])


def run_on_ray(
    ready: Ready,
    files: Mapping[str, StudyFile],
    *,
    workers: int,
    cpus: int,
    gpus: float,
    poll: Callable[[], None],
) -> Iterator[RunResult]:
    """The results as they arrive, from the Ray that this process has joined.

    A run whose worker is lost starts over, up to three times; after that it has failed.

    Args:
        ready: As in `run_here`.
        files: As in `run_here`.
        workers: Runs at a time.
        cpus: Of a run.
        gpus: Of a run.
        poll: Called a few times a second; may raise to end the bench.
    """
    from glora_search.cluster.connection import ray

    task: Any = ray.remote(_execute_on_worker).options(num_cpus=cpus, num_gpus=gpus, max_retries=3)
    running: dict[Any, Run] = {}
    try:
        while True:
            under_way = {run.key for run in running.values()}
            for run in ready():
                if len(running) >= workers:
                    break
                if run.key not in under_way:
                    running[task.remote(run, files[run.task].to_json())] = run
            if not running:
                return
            ended, _ = ray.wait(list(running), timeout=0.2)
            poll()
            for reference in ended:
                run = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayError as error:
                    text = one_line(error, limit=300, end=True)
                    result = RunResult(run=run, error=f"{type(error).__name__}: {text}")
                yield result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _execute_on_worker(run: Run, study: str) -> RunResult:
    import json

    from glora_search.bench.execute import execute
    from glora_search.study.reading import stored_study

    return execute(run, stored_study(json.loads(study)))
