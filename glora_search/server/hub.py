"""Followed studies: one poller for each study that somebody follows, however many follow it.

The poller reads the database once a second; whoever follows waits for it. So two hundred readers
cost the database, and the driver of the study, as much as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from glora_search.operations.following import StudyView
from glora_search.server.service import Service
from glora_search.server.shapes import outcome_table
from glora_search.study.errors import StudyNotFoundError
from search_spaces import GLoRASearchError

_log = logging.getLogger(__name__)

_LIVE: Final = ("study", "status", "running", "held_by", "evaluated", "failed", "planned", "best")


@dataclass(frozen=True, eq=False)
class Moment:
    """What the poller saw the last time.

    Args:
        view: The study; None before it is launched.
        state: The data of a `state` event, as JSON.
        version: Of the state: a digest.
        progress: The data of a `progress` event, as JSON; None where there is no log.
        gone: Whether the study has been deleted.
    """

    view: StudyView | None
    state: str
    version: str
    progress: str | None
    gone: bool = False

    @property
    def position(self) -> int:
        """The number of the next outcome at least."""
        return 0 if self.view is None else self.view.position


class Feed:
    """One study, polled while somebody follows it.

    Args:
        service: What is read.
        name: The study.
    """

    def __init__(self, service: Service, name: str) -> None:
        self._service = service
        self._name = name
        self._changed = asyncio.Event()
        self.readers = 0
        self.moment: Moment | None = None
        self.task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def first(self) -> Moment:
        """The study as it is when somebody begins to follow it.

        Raises:
            StudyNotFoundError: There is none of that name.
        """
        if self.moment is None:
            await self._refresh()
        assert self.moment is not None
        return self.moment

    async def reach(self, position: int) -> None:
        """Look again where a reader has seen more than the last look did: at another server, whose
        looks come at other times. Fewer outcomes are left only if the study is another one.

        Raises:
            StudyNotFoundError: There is none of that name any more.
        """
        for _ in range(2):  # a look that is under way may have begun before the reader's last one
            if (await self.first()).position < position:
                await self._refresh()

    async def next(self, seen: Moment, patience_s: float) -> Moment:
        """The next moment that differs from one that was seen; the same after a while."""
        if self.moment is seen:
            changed = self._changed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), patience_s)
        assert self.moment is not None
        return self.moment

    async def poll(self) -> None:
        """Look once in a while, until it is cancelled or the study is gone."""
        while True:
            await asyncio.sleep(self._service.settings.poll_s)
            try:
                await self._refresh()
            except StudyNotFoundError:
                self._set(Moment(None, json.dumps({"study": self._name}), "", None, gone=True))
                return
            except GLoRASearchError as error:  # the database is away: later it may be back
                _log.warning("study %r cannot be followed for now: %s", self._name, error)

    async def _refresh(self) -> None:
        """Look at the study. Whoever asks meanwhile waits for the same look, so looks never overlap
        and an older one never replaces a newer one.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_once())
        await asyncio.shield(self._looking)  # a reader that leaves does not end it for others

    async def _look_once(self) -> None:
        self._set(await asyncio.to_thread(self._look))

    def _set(self, moment: Moment) -> None:
        before = self.moment
        if before is not None and before.gone:
            return  # this poller has ended; another study of the same name gets another one
        if before is not None and not moment.gone:
            same = (before.version, before.progress) == (moment.version, moment.progress)
            if same and before.view is moment.view:
                return
        self.moment = moment
        self._changed.set()  # wakes those that wait now; later ones wait for another
        self._changed = asyncio.Event()

    def _look(self) -> Moment:
        status, view = self._service.look(self._name)
        state = json.dumps({key: status[key] for key in _LIVE}, sort_keys=True)
        progress = status["progress"]
        return Moment(
            view=view,
            state=state,
            version=hashlib.sha256(state.encode()).hexdigest()[:12],
            progress=None
            if progress is None
            else json.dumps({"study": self._name, "line": progress}),
        )


class Hub:
    """The studies that are followed in this process.

    Args:
        service: What is read.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._feeds: dict[str, Feed] = {}

    @asynccontextmanager
    async def follow(self, name: str) -> AsyncIterator[Feed]:
        """The feed of a study; it is polled until the last reader leaves."""
        feed = self._feeds.get(name)
        if feed is None or (feed.moment is not None and feed.moment.gone):
            feed = self._feeds[name] = Feed(self._service, name)
        feed.readers += 1
        try:
            await feed.first()
            if feed.task is None:
                feed.task = asyncio.create_task(feed.poll())
            yield feed
        finally:
            feed.readers -= 1
            if feed.readers == 0:
                if feed.task is not None:
                    feed.task.cancel()
                if self._feeds.get(name) is feed:
                    del self._feeds[name]


@lru_cache(maxsize=16)
def batch(view: StudyView, since: int, until: int) -> str:
    """The data of an `outcomes` event: those from `since` on and below `until`, as JSON.

    Two hundred readers ask for the same one.
    """
    found = [outcome_table(n, o) for n, o in _between(view, since, until)]
    document: dict[str, Any] = {"study": view.record.name, "since": since, "next": until}
    return json.dumps({**document, "outcomes": found})


def _between(view: StudyView, since: int, until: int) -> list[tuple[int, Any]]:
    return [(n, view.trials[n]) for n in range(since, until) if n in view.trials]
