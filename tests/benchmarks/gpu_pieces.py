"""One piece of work: a process of its own, with a limit, that ends with the one that started it.

Nothing heavy is imported here, and the process that calls `run_piece` has one thread, so it may
fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

GRACE_S: Final = 15.0
"""Seconds that a piece has to end when it is asked to."""
_POLL_S: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a piece ended.

    Args:
        status: Its exit status, negative for a signal; None where its time was over.
        seconds: How long it ran.
    """

    status: int | None
    seconds: float


def run_piece(
    command: Sequence[str],
    *,
    folder: Path,
    limit_s: float,
    environment: Mapping[str, str],
    preloaded: bool = False,
    on_tick: Callable[[float], None] = lambda seconds: None,
) -> Ended:
    """Run a Python script until it ends or its time is over; leave stdout.txt and stderr.txt.

    A piece whose time is over, or that is under way when this process is interrupted, gets a
    SIGINT, and a SIGKILL where that does not end it. Its own processes are stopped with it. If this
    process is killed, so is the piece.

    Args:
        command: The script and its arguments; `-m NAME` for a module.
        folder: Where the output goes.
        limit_s: Seconds after which it is stopped.
        environment: Added to this process's.
        preloaded: Whether the script runs in a fork of this process, with what is imported here,
            and not in a new Python.
        on_tick: Called with the seconds so far, many times a second.
    """
    begin = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_the_piece(command, folder, environment, preloaded, parent)
    status: int | None = None
    try:
        while status is None:
            ended, code = os.waitpid(pid, os.WNOHANG)
            seconds = time.monotonic() - begin
            if ended:
                status = os.waitstatus_to_exitcode(code)
            elif seconds >= limit_s:
                break
            else:
                on_tick(seconds)
                time.sleep(_POLL_S)
    finally:
        if status is None:
            _stop(pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it may have left behind
    return Ended(status=status, seconds=time.monotonic() - begin)


def _stop(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(_POLL_S)


def _be_the_piece(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    preloaded: bool,
    parent: int,
) -> NoReturn:
    """In the new process; it never returns."""
    status = 1
    try:
        os.setsid()  # a group of its own: Ctrl-C reaches it through its parent alone
        _die_with(parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            with (folder / name).open("w") as stream:
                os.dup2(stream.fileno(), descriptor)
        os.environ.update(environment)
        if not preloaded:
            os.execv(sys.executable, [sys.executable, *command])
        status = _run_here(command)
    except BaseException as error:  # noqa: BLE001 - the process ends here, whatever it was
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _run_here(command: Sequence[str]) -> int:
    """The exit status of a script or module that runs in this process."""
    for place in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if place and place not in sys.path:
            sys.path.insert(0, place)
    try:
        if command[0] == "-m":
            sys.argv = list(command[1:])
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(command)
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        sys.stderr.write(f"{ending.code}\n")
        return 1
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it was asked for
        os._exit(1)
