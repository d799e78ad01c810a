"""A sweep from a study file to its end: this process asks Ray Tune for trials and records them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ray.util.queue import Empty, Queue

from glora_search.cluster.artifacts import Artifacts
from glora_search.cluster.connection import WorkerPool, last_words, ray
from glora_search.operations.sweeping.comparable import open_or_create
from glora_search.operations.sweeping.recipes import swept_space, written_recipe
from glora_search.operations.sweeping.trial import TrialPackage
from glora_search.operations.sweeping.tuning import Plan, Rung, run_tune
from glora_search.operations.sweeping.workers import trial_workers
from glora_search.recording import Database, SweepRecord, SweepSummary
from glora_search.recording.shielding import shielded
from glora_search.recording.storage_url import driver_url, parse_url
from glora_search.stages.prepare import Materials, prepare
from glora_search.stages.progress import Bar, Progress, Silent
from glora_search.study.errors import (
    ClusterError,
    StudyFileError,
    StudyNotFoundError,
)
from glora_search.study.reading import load_study_file
from glora_search.study.study_file import StudyFile
from glora_search.study.sweep_trial import SweepTrial
from search_spaces import GLoRASearchError
from supernet.training import derive_seed

_POLL_S: Final = 0.2


def sweep(
    study: StudyFile | Path | str,
    *,
    storage: str | None = None,
    progress: Progress | None = None,
) -> SweepSummary:
    """Try recipes of the supernet until there are `sweep.trials` of them, those of earlier runs
    included.

    Args:
        study: A study file's path, or what `glora_search.study.reading.load_study_file` made of it.
        storage: As in `glora_search.launch`.
        progress: Where to report long steps.

    Raises:
        GLoRASearchError: As in `glora_search.launch`; also where every trial failed.
        FingerprintError: The sweep was begun with other data, or by another study file.
        KeyboardInterrupt: Trials that had ended are recorded; the same call goes on from there.
    """
    progress = progress or Silent()
    file = study if isinstance(study, StudyFile) else load_study_file(Path(study))
    url = driver_url(storage)
    _check_trains(file, progress)
    with ExitStack() as stack:
        # Mistakes are raised before anything is recorded, and those that show at once come first.
        pool = None
        if _missing(url, file):
            Artifacts(url=file.cluster.artifacts).check()
            pool = stack.enter_context(trial_workers(file, progress))
        materials = prepare(file, progress)
        database = stack.enter_context(Database.open(url, create=True))
        record = open_or_create(database, materials)
        with record.study.hold():
            missing = file.sweep.trials - len(record.trials())
            if pool is not None and missing > 0:
                record.study.set_attribute("status", "sweeping")
                record.study.set_attribute("planned", file.sweep.trials)
                _run(record, materials, pool, missing, progress)
                record.study.set_attribute("status", "complete")
        found = record.summary()
    if all(trial.state == "failed" for trial in found.trials.values()):
        last = found.trials[max(found.trials)]
        raise GLoRASearchError(
            f"every trial of sweep {found.name!r} failed; the last error: {last.error}"
        )
    return found


def _missing(url: str, file: StudyFile) -> int:
    """How many trials are to be made; a database that is not there is not made for that."""
    sqlite = parse_url(url).sqlite_file
    if sqlite is not None and not sqlite.exists() and sqlite.parent.is_dir():
        return file.sweep.trials
    with Database.open(url, create=True) as database:
        try:
            done = len(database.open_sweep(file.study.name).trials())
        except StudyNotFoundError:
            done = 0
    return max(0, file.sweep.trials - done)


def _check_trains(file: StudyFile, progress: Progress) -> None:
    """Refuse a study that trains no supernet, and tell where a launch trains otherwise."""
    if file.supernet.checkpoint is not None:
        raise StudyFileError(
            f"supernet.checkpoint = {str(file.supernet.checkpoint)!r}: a study that takes a "
            "trained supernet has no recipe to sweep; leave the key out"
        )
    if file.supernet.workers > 1:
        progress.note(
            f"a trial trains in one process, but a launch trains in {file.supernet.workers}, each "
            "with supernet.batch_size images a step; for a step of the same size, sweep with "
            f"supernet.batch_size={file.supernet.workers * file.supernet.batch_size}"
        )


class _Told:
    """Counts trials, and shows on a bar how the best and those under way stand."""

    def __init__(self, bar: Bar, n: int) -> None:
        self._bar, self._n, self._done = bar, n, 0
        self._best: SweepTrial | None = None
        self._last = ""

    def take(self, news: SweepTrial | Rung) -> None:
        """A trial has ended, or has come so far."""
        if isinstance(news, Rung):
            self._last = f"at {news.percent} % {news.loss:.4f}"
            return
        self._done += 1
        if news.state == "complete" and (self._best is None or news.rank < self._best.rank):
            self._best = news

    @property
    def under_way(self) -> bool:
        """Whether trials are missing."""
        return self._done < self._n

    def show(self) -> None:
        """Move the bar, which also looks for an interruption."""
        best = None if self._best is None else self._best.loss
        told = [] if best is None else [f"best val loss {best:.4f}"]
        if self.under_way and self._last:
            told.append(self._last)
        self._bar.update(self._done, ", ".join(told))


def _run(
    record: SweepRecord, materials: Materials, pool: WorkerPool, n: int, progress: Progress
) -> None:
    """Have Ray Tune make `n` trials, and record each when it has ended."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    file, done = materials.file, record.frozen_trials()
    written = written_recipe(file)
    plan = Plan(
        space=swept_space(file),
        done=done,
        first=None if any(trial.params == written for trial in done) else written,
        n=n,
        concurrent=None if file.sweep.concurrent == "auto" else pool.workers,
        seed=derive_seed(file.study.seed, "sweep", len(done)) % 2**32,
        grace=100 * file.sweep.grace,
        reduction_factor=file.sweep.reduction_factor,
        cpus=pool.cpus,
        gpus=pool.gpus,
        max_restarts=file.sweep.max_restarts,
    )
    # Where the driver is: if that node is lost, everything is.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    beside: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    queue = Queue(actor_options=beside)
    package = ray.put(TrialPackage.of(materials, on_gpu=pool.gpus > 0))
    task: Any = ray.remote(run_tune).options(max_retries=0, **beside)
    run, ended = task.remote([package], plan, queue), False
    try:
        with progress.bar("sweeping", len(done) + n) as bar:
            told = _Told(bar, len(done) + n)
            for trial in record.trials().values():
                told.take(trial)
            while not ended:
                ended = bool(ray.wait([run], timeout=_POLL_S)[0])
                for news in _recorded(queue, record):
                    told.take(news)
                    told.show()
                if told.under_way:
                    told.show()
        ray.get(run)
    except ray.exceptions.RayError as error:
        text = last_words(error)
        raise ClusterError(
            f"the sweep was lost: {text}; trials that had ended are recorded, and the same command "
            "goes on from there"
        ) from error
    finally:
        if not ended:
            ray.cancel(run, force=True)
        queue.shutdown(force=True)


def _recorded(queue: Queue, record: SweepRecord) -> list[SweepTrial | Rung]:
    """What was in the queue, once all of it that has ended is recorded."""
    found: list[SweepTrial | Rung] = []
    with shielded():
        while True:
            try:
                news = queue.get_nowait()
            except Empty:
                return found
            if isinstance(news, SweepTrial):
                record.add(news)
            found.append(news)
