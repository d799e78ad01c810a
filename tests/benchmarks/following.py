"""Readers of a study's events, as many as one likes, in a process of their own.

    python tests/benchmarks/following.py ADDRESS STUDY READERS SINCE UNTIL

Each follows the study over a connection of its own, from outcome SINCE until it has seen the one
before UNTIL. Prints a line when all of them are connected, and a JSON line when the last has ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import lru_cache

import httpx


async def follow_all(address: str, study: str, readers: int, since: int, until: int) -> None:
    """Follow, and print what has become of it."""
    unlimited = httpx.Limits(max_connections=None)
    begin, connected = time.perf_counter(), asyncio.Barrier(readers + 1)
    url = f"/api/v1/studies/{study}/events?since={since}"
    async with (
        httpx.AsyncClient(base_url=address, timeout=600, limits=unlimited) as http,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(_follow(http, url, connected, until)) for _ in range(readers)]
        await connected.wait()
        cpu_s = time.process_time()
        _say({"connected": readers, "connecting_s": round(time.perf_counter() - begin, 2)})
    found = [task.result() for task in tasks]
    wanted = list(range(since, until))
    _say(
        {
            "readers": readers,
            "got_each_outcome_once": sum(numbers == wanted for numbers in found),
            "cpu_s": round(time.process_time() - cpu_s, 3),
        }
    )


async def _follow(
    http: httpx.AsyncClient, url: str, connected: asyncio.Barrier, until: int
) -> list[int]:
    """The numbers of the outcomes in the order in which they came."""
    numbers: list[int] = []
    async with http.stream("GET", url) as answer:
        answer.raise_for_status()
        await connected.wait()
        kind = ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "outcomes":
                following, came = _outcomes(value)
                numbers += came
                if following >= until:
                    return numbers
    raise RuntimeError(f"the stream ended after {len(numbers)} outcomes")


@lru_cache(maxsize=64)
def _outcomes(data: str) -> tuple[int, tuple[int, ...]]:
    """Where the next event begins, and the numbers; many readers get the same text."""
    told = json.loads(data)
    return told["next"], tuple(outcome["trial"] for outcome in told["outcomes"])


def _say(told: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    address, study, *numbers = sys.argv[1:]
    asyncio.run(follow_all(address, study, *map(int, numbers)))
