"""SIGKILL to a worker of Ray's in the middle of what this process asked Ray for, or to all Ray."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import psutil


@contextlib.contextmanager
def killing_a_worker(title: str, when: Callable[[], bool] = lambda: True) -> Iterator[list[int]]:
    """During the block, kill the first process below this one whose title has `title`, once `when`
    is true; yields a list that then holds its process id.
    """
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and not killed:
            for process in psutil.Process().children(recursive=True) if when() else []:
                with contextlib.suppress(psutil.Error):
                    if title in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                        break
            time.sleep(0.05)  # looking at every process costs as much time

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to all of them and all below them at once."""
    everybody = [*processes]
    for process in processes:
        everybody += process.children(recursive=True)
    for one in everybody:
        one.suspend()  # so that nobody sees another one die, and does something about it
    for one in everybody:
        one.kill()
