"""Room for trials: a Ray, and what each trial takes of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from glora_search.cluster.connection import WorkerPool, connect, disconnect, ray
from glora_search.stages.progress import Progress
from glora_search.study.study_file import StudyFile


@contextmanager
def trial_workers(file: StudyFile, progress: Progress) -> Iterator[WorkerPool]:
    """A connection to Ray for as long as trials run; the pool is as large as there are trials at
    once.
    """
    section, address = file.sweep, file.cluster.address
    workers = 1
    if section.concurrent != "auto":
        workers = section.concurrent
    elif address is None:
        workers = max(1, (os.cpu_count() or 1) // section.cpus_per_trial)
    pool = WorkerPool(
        workers=workers,
        cpus=section.cpus_per_trial,
        wait_s=file.cluster.wait_s,
        keys=("sweep.concurrent", "sweep.cpus_per_trial", "sweep.gpus_per_trial"),
    )

    def told(room: int) -> None:
        progress.note(f"waiting for the cluster: room for {room} of {pool.workers} trials")

    mine = not ray.is_initialized()
    try:
        connect(address, pool, told)
        gpus = section.gpus_per_trial
        if gpus is None:
            there = int(ray.cluster_resources().get("GPU", 0))
            gpus = 0.0 if file.supernet.device == "cpu" else gpus_for(pool.workers, there)
        pool = replace(pool, gpus=gpus)
        connect(address, pool, told)
        yield pool
    finally:
        if mine:
            disconnect()


def gpus_for(trials: int, gpus: int) -> float:
    """What each trial gets so that all run at once: at most one GPU, or a whole part of one."""
    if not gpus:
        return 0.0
    return math.floor(1e4 / math.ceil(trials / gpus)) / 1e4  # as fine as Ray counts
