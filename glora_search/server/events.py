"""The route of events: a study as it goes on, as server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from glora_search.server.hub import Feed, Hub, Moment, batch
from glora_search.server.problems import RefusedError, told
from glora_search.server.shapes import StudyName

router = APIRouter(tags=["events"])

_MOST: Final = 500  # outcomes of one event
_KEEP_ALIVE_S: Final = 15.0
_ID: Final = re.compile(r"([0-9]{1,12})(?:-([0-9a-f]{0,12}))?")

_TOLD = """\
A study as it goes on, as server-sent events (`text/event-stream`). The data of each is JSON:

- `state`: {"study", "status", "running", "held_by", "evaluated", "failed", "planned", "best"}, the
  same as in `GET /studies/{name}`. It comes once at the beginning, after the outcomes that it
  counts, and whenever it has changed. The server polls the database, so a change that was undone
  between two reads is not sent.
- `outcomes`: {"study", "since", "next", "outcomes": [...]}, at most 500, as in
  `GET /studies/{name}/outcomes`. Every outcome comes exactly once.
- `progress`: {"study", "line"}: the last line of the log, such as how far the training is. Only
  where the study's process writes its log on the server's machine, or is a job of its cluster.
- `gone`: {"study"}: the study was deleted; the stream ends.

An id is `NEXT-VERSION`: the number of the next outcome, which only grows, and a digest of the
state. Whoever reconnects with `Last-Event-ID` gets every outcome from NEXT on, and the state if it
is another one. Without it, `since` says from which outcome on; by default from the first.
"""


@router.get(
    "/studies/{name}/events",
    summary="A study as it goes on",
    description=_TOLD,
    response_class=StreamingResponse,
    responses={
        **told(409),
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
)
async def events(
    name: StudyName,
    request: Request,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
    since: Annotated[int, Query(ge=0, le=10**12, description="The lowest number.")] = 0,
) -> StreamingResponse:
    """The stream; told by its description."""
    hub: Hub = request.app.state.hub
    version = ""
    if last_event_id:
        found = _ID.fullmatch(last_event_id)
        if found is None:
            raise RefusedError(400, "the header Last-Event-ID is no id of this stream")
        since, version = int(found[1]), found[2] or ""
    stream = _stream(hub, name, since, version)
    first = await anext(stream)  # an unknown study is told before the stream begins

    async def whole() -> AsyncIterator[str]:
        yield first
        async for text in stream:
            yield text

    return StreamingResponse(whole(), media_type="text/event-stream")


async def _stream(hub: Hub, name: str, since: int, version: str) -> AsyncIterator[str]:
    async with hub.follow(name) as feed:
        if version:
            await feed.reach(since)
        yield "retry: 2000\n\n"
        async for text in _told_of(hub, feed, since, version):
            yield text


async def _told_of(hub: Hub, feed: Feed, position: int, version: str) -> AsyncIterator[str]:
    moment: Moment = await feed.first()
    progress: str | None = None
    while True:
        if moment.gone:
            yield _event("gone", moment.state)
            return
        if version and moment.position < position and moment.version != version:
            position = 0  # another study of the same name: positions only grow
        while moment.view is not None and position < moment.position:
            until = min(position + _MOST, moment.position)
            data = batch(moment.view, position, until)
            position = until
            yield _event("outcomes", data, f"{position}-{version}")
        if moment.version != version:
            version = moment.version
            yield _event("state", moment.state, f"{position}-{version}")
        if moment.progress is not None and moment.progress != progress:
            progress = moment.progress
            yield _event("progress", progress)
        following = await feed.next(moment, _KEEP_ALIVE_S)
        if following is moment:
            yield ": nothing new\n\n"
        moment = following


def _event(kind: str, data: str, identity: str | None = None) -> str:
    head: Any = "" if identity is None else f"id: {identity}\n"
    return f"{head}event: {kind}\ndata: {data}\n\n"
