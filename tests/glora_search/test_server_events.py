"""Events: a reader misses nothing, and many readers cost no more than one."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pytest
from recording_cases import outcome
from server_cases import record, served, settings, storage

from glora_search.client.events import Event, read_events
from glora_search.operations.running import LOG
from glora_search.recording import Database
from glora_search.server.hub import Hub
from glora_search.server.service import Service


def read_until(url: str, trial: int, last_id: str = "") -> list[Event]:
    """The events of study a until an outcome has come, and the state that counts it."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    found = []
    with httpx.stream("GET", f"{url}/api/v1/studies/a/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for event in read_events(answer.iter_lines(), last_id):
            found.append(event)
            if trial in trials_of(found) and event.kind == "state":
                return found
    raise AssertionError("the stream has ended")


def trials_of(events: list[Event]) -> list[int]:
    return [o["trial"] for e in events if e.kind == "outcomes" for o in e.data["outcomes"]]


@pytest.mark.slow
def test_who_connects_again_misses_nothing_and_gets_nothing_twice(tmp_path: Path) -> None:
    """Also at another server, and where outcomes came while nobody read."""
    with Database(storage(tmp_path)) as database:
        study = record(database, "a", 5)
        with served(tmp_path) as url:
            first = read_until(url, 4)
            with study.hold():
                study.flush([outcome(1, index) for index in range(5)])
        with served(tmp_path) as url:
            second = read_until(url, 9, first[-1].id)
    assert trials_of(first) + trials_of(second) == list(range(10))
    assert first[-1].data["evaluated"] == 5
    assert second[-1].data["evaluated"] == 10
    assert int(first[-1].id.partition("-")[0]) == 5
    with served(tmp_path) as url:
        unknown = httpx.get(f"{url}/api/v1/studies/b/events")
        assert (unknown.status_code, "a" in unknown.json()["detail"]) == (404, True)
        headers = {"Last-Event-ID": "../../x"}
        assert httpx.get(f"{url}/api/v1/studies/a/events", headers=headers).status_code == 400


def test_two_hundred_readers_are_one_poller(tmp_path: Path) -> None:
    """All of them see a change, and the database is read once for it."""
    with Database(storage(tmp_path)) as database:
        study = record(database, "a", 5)

        async def readers() -> tuple[int, set[int], int]:
            service = Service(settings(tmp_path))
            hub, looks = Hub(service), 0
            look = service.look

            def counted(name: str) -> object:
                nonlocal looks
                looks += 1
                return look(name)

            service.look = counted  # type: ignore[method-assign,assignment]
            entered, positions = asyncio.Semaphore(0), []

            async def reader() -> None:
                async with hub.follow("a") as feed:
                    moment = await feed.first()
                    entered.release()
                    while moment.position < 6:
                        moment = await feed.next(moment, 60)
                    positions.append(moment.position)

            async with hub.follow("a"):
                before = looks
                tasks = [asyncio.create_task(reader()) for _ in range(200)]
                for _ in tasks:
                    await entered.acquire()
                joined = looks - before

                def flush() -> None:
                    with study.hold():
                        study.flush([outcome(1, 0)])

                await asyncio.to_thread(flush)
                await asyncio.gather(*tasks)
                feeds = len(hub._feeds)
            service.close()
            assert not hub._feeds, "nobody reads any more"
            assert joined < 100, "joining readers take what is known"
            return feeds, set(positions), len(positions)

        assert asyncio.run(readers()) == (1, {6}, 200)


def test_two_hundred_first_readers_are_one_look(tmp_path: Path) -> None:
    """All of them come at once after a restart, when nothing is known yet of the study."""
    with Database(storage(tmp_path)) as database:
        record(database, "a", 5)

        async def readers() -> tuple[int, set[int]]:
            service = Service(settings(tmp_path, poll_s=60.0))
            hub, looks, all_wait = Hub(service), 0, threading.Event()
            look = service.look

            def held_back(name: str) -> object:
                nonlocal looks
                looks += 1
                assert all_wait.wait(60)
                return look(name)

            service.look = held_back  # type: ignore[method-assign,assignment]

            async def reader() -> int:
                async with hub.follow("a") as feed:
                    return (await feed.first()).position

            tasks = [asyncio.create_task(reader()) for _ in range(200)]
            for _ in range(3):
                await asyncio.sleep(0)
            all_wait.set()
            positions = await asyncio.gather(*tasks)
            service.close()
            return looks, set(positions)

        assert asyncio.run(readers()) == (1, {5})


def test_an_older_look_that_ends_later_changes_nothing(tmp_path: Path) -> None:
    """Else positions would fall, and a stream would begin anew with the first outcome."""
    with Database(storage(tmp_path)) as database:
        study = record(database, "a", 5)

        async def readers() -> list[int]:
            service = Service(settings(tmp_path))
            hub, has_read, may_end = Hub(service), threading.Event(), threading.Event()
            look = service.look

            def slow(name: str) -> object:
                service.look = look  # type: ignore[method-assign]  # only this one is slow
                found = look(name)
                has_read.set()
                assert may_end.wait(60)
                return found

            service.look = slow  # type: ignore[method-assign,assignment]
            seen: list[int] = []

            async def reader() -> None:
                async with hub.follow("a") as feed:
                    moment = await feed.first()
                    seen.append(moment.position)
                    while not may_end.is_set() or moment.position < 6:
                        moment = await feed.next(moment, 0.05)
                        seen.append(moment.position)

            first = asyncio.create_task(reader())
            assert await asyncio.to_thread(has_read.wait, 60)

            def flush() -> None:
                with study.hold():
                    study.flush([outcome(1, 0)])

            await asyncio.to_thread(flush)
            second = asyncio.create_task(reader())
            await asyncio.wait([second], timeout=0.3)  # long enough for a look of its own
            may_end.set()
            await asyncio.gather(first, second)
            service.close()
            return seen

        seen = asyncio.run(readers())
    assert seen == sorted(seen)
    assert seen[-1] == 6


@pytest.mark.slow
def test_a_server_whose_look_is_older_sends_nothing_twice(tmp_path: Path) -> None:
    """A reader comes from another server with an id that this one has not reached yet."""
    events = "/api/v1/studies/a/events"
    with Database(storage(tmp_path)) as database, served(tmp_path, poll_s=600.0) as url:
        study = record(database, "a", 5)
        with httpx.stream("GET", url + events) as other:
            followed = read_events(other.iter_lines())  # it keeps the poller, as long as it lives
            assert next(followed).data["next"] == 5
            with study.hold():
                study.flush([outcome(1, 0)])
            again = {"Last-Event-ID": "6-0123456789ab"}
            with httpx.stream("GET", url + events, headers=again) as answer:
                event = next(read_events(answer.iter_lines()))
    assert (event.kind, event.data["evaluated"]) == ("state", 6)


def test_each_last_line_of_the_log_is_an_event(tmp_path: Path) -> None:
    """Of a process of this machine; a line that stays is sent once, and documents never are."""
    with Database(storage(tmp_path)) as database, served(tmp_path) as url:
        study = record(database, "a", 1)
        log = tmp_path / "runs" / "a" / LOG
        log.parent.mkdir()
        log.write_text("supernet: epoch 1\n")
        lines = []
        with httpx.stream("GET", f"{url}/api/v1/studies/a/events") as answer:
            for event in read_events(answer.iter_lines()):
                if event.kind == "progress":
                    lines.append(event.data)
                    with log.open("a") as written:
                        written.write("supernet: epoch 2\n" if len(lines) == 1 else "{\n}\n")
                    if len(lines) == 2:  # the next change is another one
                        with study.hold():
                            study.flush([outcome(1, 0)])
                if event.kind == "state" and event.data["evaluated"] == 2:
                    break
    told = ["supernet: epoch 1", "supernet: epoch 2"]
    assert lines == [{"study": "a", "line": line} for line in told]


def test_a_deleted_study_ends_its_stream(tmp_path: Path) -> None:
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
        with (
            served(tmp_path) as url,
            httpx.stream("GET", f"{url}/api/v1/studies/a/events") as answer,
        ):
            events = read_events(answer.iter_lines())
            kinds = [next(events).kind, next(events).kind]
            database.delete("a")
            kinds += [event.kind for event in events]
    assert kinds[:2] == ["outcomes", "state"]
    assert kinds[-1] == "gone"


def test_events_are_read_as_the_standard_writes_them() -> None:
    """Comments, fields without a space, data over several lines, and what has no data."""
    text = ': hello\nid: 3-a\nevent: state\ndata: {\ndata:"x": 1}\n\nevent: state\n\nretry: 5\n\n'
    (event,) = read_events(text.split("\n"))
    assert (event.kind, event.data, event.id) == ("state", json.loads('{"x": 1}'), "3-a")
