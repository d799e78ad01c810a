"""What holds for the whole test session, and what its tests share."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Set before any process of the tests imports torch: small networks are fastest on one thread, sums
# are added up in one order, and other tests need the cores as well.
os.environ["OMP_NUM_THREADS"] = "1"

# Ray's workers run at nice 15, and a test that waits for them would wait for all others as well.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - it is spelled like that

# Nor does a cluster start processes before anybody has asked for one.
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112

# Nor does a training have a process that looks whether a cloud takes its nodes away.
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"

# Optuna runs its ten migration scripts three times for each database that is opened, which takes as
# long as the rest of it. Once in a process is enough: they only define what they would do.
with contextlib.suppress(ImportError):  # a GPU machine has no database
    from alembic.util import pyfiles

    pyfiles.load_module_py = functools.cache(pyfiles.load_module_py)

# While tests are collected, torch and its like are imported, and hardly anything becomes garbage.
gc.disable()

# A test must not fail because the machine is busy.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[str]:
    """The address of a Ray with two CPUs, which all tests of this process share.

    Starting one takes seconds. Tests connect to it and disconnect; a test that kills nodes, or
    needs another number of CPUs, starts a Ray of its own.
    """
    from own_ray import FEWER_PROCESSES
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 2,
        **FEWER_PROCESSES,
        "object_store_memory": 200_000_000,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but do not look for it among what stays for the session."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the shared Ray as slow, before pytest selects by marker."""
    for item in items:
        if "shared_ray" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
