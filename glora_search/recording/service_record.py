"""What servers keep of a study: the study file before it is launched, and who is starting it.

It is an Optuna study of its own without trials, called `<study>/service`; our studies cannot have
such a name. Several servers share it. Between the request to start a study and the moment at which
its driver takes the study's own lease there are seconds to hours: a backbone may have to be trained
first. The lease of this record stands for that time, so that two servers do not start the same
study. A server takes it, and the driver takes it over and renews it until it has the study's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from glora_search.recording.lease import Holder, Lease
from glora_search.recording.store import FREE, StudyStore
from glora_search.recording.trial_codec import JSON
from glora_search.study.errors import StudyHeldError

SERVICE_SUFFIX: Final = "/service"
"""What a server keeps of a study is called as the study, with this suffix."""

_CLAIM: Final = "claim-"  # prefix of a claim's token until a driver takes it over
_CLAIM_S: Final = 120.0  # between a request to start and the driver, which renews it
_ELSEWHERE: Final = ""  # in the place of a machine: no process of any machine


class Claim:
    """The right to start a study. Made by `ServiceRecord.claim`."""

    def __init__(self, store: StudyStore, text: str) -> None:
        self._store = store
        self._text: str | None = text

    def hand_over(self, pid: int) -> None:
        """Let a process of this machine be the one that starts the study, until it ends or a while
        has passed: by then it has taken over.
        """
        _, now = self._store.read_lease()
        self._swap(Holder.of_process(pid, now=now, ttl_s=_CLAIM_S).to_json())
        self._text = None

    def keep(self) -> None:
        """Let the claim run out by itself, whatever becomes of this process: a job of a cluster
        was submitted, whose driver will take over.
        """
        holder = Holder.from_json(self._text)
        if holder is not None:
            self._swap(replace(holder, machine=_ELSEWHERE).to_json())
        self._text = None

    def give_back(self) -> None:
        """Let others start the study, unless the claim was handed over or kept."""
        if self._text is not None:
            self._swap(FREE)

    def _swap(self, new: str) -> None:
        if self._text is not None:
            self._store.swap_lease(self._text, new)


class ServiceRecord:
    """What servers keep of one study. Made by `Database.create_service` and `services`.

    Attributes:
        study: The study's name.
        attributes: What is stored with it, as of when it was read.
    """

    def __init__(self, store: StudyStore, *, study: str, attributes: dict[str, Any]) -> None:
        self.study = study
        self.attributes = attributes
        self._store = store

    @property
    def starter(self) -> Holder | None:
        """The process that is starting the study; None if there is none, or it has ended."""
        text, now = self._store.read_lease()
        holder = Holder.from_json(text)
        return None if holder is None or holder.is_over(now) else holder

    @staticmethod
    def is_driver(starter: Holder) -> bool:
        """Whether a starter is the study's own process, and not a server that will begin one."""
        return not starter.token.startswith(_CLAIM)

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """The right to start the study, for the block, and beyond it where it is handed over.

        Raises:
            StudyHeldError: Somebody else is starting it.
        """
        text, now = self._store.read_lease()
        before = Holder.from_json(text)
        mine = Holder.this_process(now=now, ttl_s=_CLAIM_S)
        new = replace(mine, token=f"{_CLAIM}{mine.token}").to_json()
        taken = before is not None and not before.is_over(now)
        if taken or not self._store.swap_lease(text, new):
            by = f" by {before}" if taken else ""
            raise StudyHeldError(f"study {self.study!r} is being started already{by}; wait for it")
        claim = Claim(self._store, new)
        try:
            yield claim
        finally:
            claim.give_back()

    @contextmanager
    def taken_over(self) -> Iterator[None]:
        """For the block be the process that starts the study, if a server has asked for one: the
        lease is renewed however long it takes, and given back at the end.
        """
        text, now = self._store.read_lease()
        before = Holder.from_json(text)
        mine = Holder.this_process(now=now, ttl_s=_CLAIM_S)
        asked = before is not None and (not self.is_driver(before) or before.is_same_process(mine))
        if not asked or not self._store.swap_lease(text, mine.to_json()):
            yield
            return
        lease = Lease(
            self._store, study=f"{self.study}{SERVICE_SUFFIX}", holder=mine, ttl_s=_CLAIM_S
        )
        try:
            yield
        finally:
            lease.release()

    def drop_claim(self) -> None:
        """Give back a claim that no driver has taken over: its job is stopped, or goes on with a
        study, whose own lease it has.
        """
        text, _ = self._store.read_lease()
        holder = Holder.from_json(text)
        if holder is not None and not self.is_driver(holder):
            self._store.swap_lease(text, FREE)

    def set_attribute(self, key: str, value: JSON) -> None:
        """Write one attribute at once."""
        self._store.set_attribute(key, value, token=None)
