"""The lease of a study: one process drives it at a time.

The lease is a user attribute of the study, so the schema stays Optuna's own. It names the holder
and says until when it lasts, on the database's clock. A process takes, renews and releases it by a
compare-and-swap of that row. A daemon thread renews it three times within its duration. Another
process can take it over once it has run out, or at once if the holder was a process of the same
machine and has ended.

Fencing makes this safe: every write checks, in its own transaction, that the row still holds the
writer's token. So a process that was suspended for longer than its lease cannot write into a study
that another process now drives.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import psutil

from glora_search.recording.store import FREE
from glora_search.study.errors import DamagedStudyError, StorageError, StudyHeldError

_log = logging.getLogger(__name__)

_SAME_START_S = 2.0  # by so much a clock adjustment can shift the start time of a process
_TAKE_ATTEMPTS = 10
_RETRY_S = 1.0  # while the database is away; short, to renew before others take over


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a study, and for how long.

    Args:
        token: Random, new for each lease. Every write is checked against it.
        host: The host's name.
        pid: The process's id.
        machine: Identifies the running system to which `pid` belongs.
        process_started: When the process started, on its host's clock, seconds since 1970 UTC.
        since: When the lease was taken, on the database's clock, seconds since 1970 UTC.
        until: When the lease runs out unless it is renewed, on the same clock.
        flush_s: Seconds that its last flush took, as of the last renewal; None before the first.
    """

    token: str
    host: str
    pid: int
    machine: str
    process_started: float
    since: float
    until: float
    flush_s: float | None = None

    @classmethod
    def this_process(cls, *, now: float, ttl_s: float) -> Holder:
        """This process as the holder of a new lease."""
        return cls.of_process(os.getpid(), now=now, ttl_s=ttl_s)

    @classmethod
    def of_process(cls, pid: int, *, now: float, ttl_s: float) -> Holder:
        """A process of this machine as the holder of a new lease.

        Raises:
            psutil.NoSuchProcess: There is none of that id.
        """
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=pid,
            machine=_machine(),
            process_started=psutil.Process(pid).create_time(),
            since=now,
            until=now + ttl_s,
        )

    @classmethod
    def from_json(cls, text: str | None) -> Holder | None:
        """The holder that the text of a lease row names; None if the study is free.

        Raises:
            DamagedStudyError: The text is no lease.
        """
        if text is None or text == FREE:
            return None
        try:
            record = json.loads(text)
            return cls(
                token=str(record["token"]),
                host=str(record["host"]),
                pid=int(record["pid"]),
                machine=str(record["machine"]),
                process_started=float(record["process_started"]),
                since=float(record["since"]),
                until=float(record["until"]),
                flush_s=record.get("flush_s"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedStudyError(f"the lease of the study cannot be read: {error}") from error

    def to_json(self) -> str:
        """The text of the lease row."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"

    def is_over(self, now: float) -> bool:
        """Whether the lease may be taken over.

        Args:
            now: The database's clock.
        """
        return now >= self.until or self.is_dead

    def is_same_process(self, other: Holder) -> bool:
        """Whether another holder is the same process."""
        mine, its = (self.machine, self.pid), (other.machine, other.pid)
        started_at_once = abs(self.process_started - other.process_started) <= _SAME_START_S
        return mine == its and started_at_once

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine, to which a signal can be sent."""
        return self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; False for a process of another machine."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            started = float(process.create_time())
            return abs(started - self.process_started) > _SAME_START_S
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


class LeaseRow(Protocol):
    """The part of a StudyStore that a lease needs."""

    def read_lease(self) -> tuple[str | None, float]:
        """The row's text (None if there is no row), and the database's clock."""
        ...

    def swap_lease(self, old: str | None, new: str) -> bool:
        """Replace the row's text if it still is `old`; return whether it was."""
        ...


class Lease:
    """A lease that is held, until `release`. Made by `Lease.take`.

    Attributes:
        holder: This process, with the token against which writes are checked.
        flush_s: Seconds that the last flush took, which the next renewal tells others.
    """

    def __init__(self, row: LeaseRow, *, study: str, holder: Holder, ttl_s: float) -> None:
        self.holder = holder
        self.flush_s: float | None = None
        self._row = row
        self._study = study
        self._ttl_s = ttl_s
        self._lost = threading.Event()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {study}", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, row: LeaseRow, *, study: str, ttl_s: float) -> Lease:
        """Take the lease, and keep renewing it.

        Args:
            row: The study's lease row.
            study: The study's name, for messages.
            ttl_s: Seconds for which the lease lasts after each renewal.

        Raises:
            StudyHeldError: Another process, or another part of this one, holds the study.
            StorageError: The database fails.
        """
        for _ in range(_TAKE_ATTEMPTS):
            text, now = row.read_lease()
            before = Holder.from_json(text)
            if before is not None and not before.is_over(now):
                raise StudyHeldError(_refusal(study, before))
            holder = Holder.this_process(now=now, ttl_s=ttl_s)
            if row.swap_lease(text, holder.to_json()):
                if before is not None:
                    _log.warning(
                        "study %r: taken over from %s, %s",
                        study,
                        before,
                        "which is no more" if before.is_dead else "whose lease ran out",
                    )
                return cls(row, study=study, holder=holder, ttl_s=ttl_s)
        raise StudyHeldError(f"study {study!r}: other processes take and leave it; try again")

    @property
    def token(self) -> str:
        """The token against which writes under this lease are checked."""
        return self.holder.token

    @property
    def lost(self) -> bool:
        """Whether the renewing thread found the lease taken by another process; it stays lost."""
        return self._lost.is_set()

    def release(self) -> None:
        """Release the lease, unless another process has it. A database error is only logged."""
        self._released.set()
        self._thread.join()
        try:
            self._swap(lambda _holder, _now: FREE)
        except StorageError as error:
            _log.warning(
                "study %r: its lease could not be given back (%s); it runs out within %g s, and "
                "for this machine when this process ends",
                self._study,
                error,
                self._ttl_s,
            )

    def _keep(self) -> None:
        """Renew the lease until it is released or lost.

        If the database does not answer, try again. A lease that ran out meanwhile is still renewed,
        unless another process has taken it.
        """
        usual_s = self._ttl_s / 3
        wait_s = usual_s
        while not self._released.wait(wait_s):
            try:
                held = self._swap(self._renewed)
            except StorageError as error:
                if wait_s == usual_s:
                    _log.warning("study %r: its lease could not be renewed: %s", self._study, error)
                wait_s = min(usual_s / 2, _RETRY_S)
                continue
            wait_s = usual_s
            if not held:
                _log.error("study %r: its lease was lost to another process", self._study)
                self._lost.set()
                return

    def _renewed(self, holder: Holder, now: float) -> str:
        return replace(holder, until=now + self._ttl_s, flush_s=self.flush_s).to_json()

    def _swap(self, new: Callable[[Holder, float], str]) -> bool:
        """Replace the row if it still holds the token; return whether it did.

        The row is read anew each time: if a connection broke during a commit, the row may hold
        either text.
        """
        text, now = self._row.read_lease()
        holder = Holder.from_json(text)
        if holder is None or holder.token != self.token:
            return False
        return self._row.swap_lease(text, new(holder, now))


def check_token(text: str | None, *, token: str, study: str) -> None:
    """Raise StudyHeldError unless `text`, the text of the lease row, holds `token`."""
    holder = Holder.from_json(text)
    if holder is None:
        raise StudyHeldError(
            f"study {study!r}: this process no longer holds it and may not write; resume the study"
        )
    if holder.token != token:
        raise StudyHeldError(
            f"study {study!r}: this process lost its lease, so it may not write; {_held_by(holder)}"
        )


def _refusal(study: str, holder: Holder) -> str:
    return (
        f"study {study!r} is driven by another process: {_held_by(holder)} and is renewed while "
        f"that process lives; wait for it, or stop process {holder.pid} on {holder.host}"
    )


def _held_by(holder: Holder) -> str:
    since, until = (
        datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        for t in (holder.since, holder.until)
    )
    return f"{holder} holds it since {since}; its lease lasts until {until}"


def _machine() -> str:
    """A name for this running system, within which a process id is unique.

    A host name will not do: two containers can share one, and each has a process 1.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux, so no containers share the host name
        return socket.gethostname()
