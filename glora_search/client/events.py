"""Server-sent events, as the server writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to a study.

    Args:
        kind: `state`, `outcomes`, `progress` or `gone`.
        data: As the server's documentation tells for each kind.
        id: The last position in the stream; "" before there is one.
    """

    kind: str
    data: dict[str, Any]
    id: str


def read_events(lines: Iterable[str], last_id: str = "") -> Iterator[Event]:
    """The events of a stream.

    Args:
        lines: Without their ends.
        last_id: What was read before.
    """
    kind, data = "", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Event(kind=kind, data=json.loads(data), id=last_id)
            kind, data = "", ""
        elif name == "event":
            kind = value
        elif name == "data":
            data += value
        elif name == "id":
            last_id = value
