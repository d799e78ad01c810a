"""The client, over a real connection to a real server."""

from __future__ import annotations

import fcntl
import re
import time
import types
import typing
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from recording_cases import outcome
from server_cases import (
    READ_TOKEN,
    TOKEN,
    begun_by,
    exported,
    record,
    served,
    serving,
    settings,
    storage,
)

from glora_search.client import Client, ServerUnavailableError, ServiceError, answers
from glora_search.client.events import Event
from glora_search.operations.running import LOG
from glora_search.operations.served_exports import FOLDER
from glora_search.recording import Database
from glora_search.server import exports, files, operational, shapes
from glora_search.server.app import make_app
from glora_search.study.errors import (
    ArtifactError,
    StudyFileError,
    StudyHeldError,
    StudyNotFoundError,
    StudyNotRunningError,
    SubnetNotFoundError,
)
from glora_search.study.examples import load_example

Application = Callable[..., Awaitable[None]]


@pytest.mark.slow
def test_each_method_answers_and_each_problem_is_its_error(tmp_path: Path) -> None:
    with Database(storage(tmp_path)) as database:
        study = record(database, "a")
        with served(tmp_path) as url, Client(url) as client:
            assert [s["study"] for s in client.studies()] == ["a"]
            assert list(client.studies(contains="b")) == []
            assert client.status("a")["evaluated"] == 9
            assert [o["trial"] for o in client.outcomes("a", since=4)] == list(range(4, 10))
            best = client.winner("a")
            assert client.subnet("a", best["outcome"]["digest"]) == best
            assert client.front("a")[-1] == best["outcome"]
            assert client.history("a")["improvements"]
            assert client.wait("a")["running"] is False
            with pytest.raises(StudyFileError, match="line 2") as caught:
                client.create("[study]\ncolour = 1\n")
            assert "study.colour" in {mistake.key for mistake in caught.value.mistakes}
            with pytest.raises(StudyNotFoundError, match="holds: a"):
                client.status("zz")
            with pytest.raises(StudyNotRunningError):
                client.stop("a")
            with study.hold(), pytest.raises(StudyHeldError):
                client.delete("a")
            with pytest.raises(ServiceError, match="no log"):
                client.logs("a")
            with pytest.raises(StudyNotRunningError, match="no trained supernet"):
                client.export("a", tmp_path / "a.zip", pick="loss")
            with pytest.raises(SubnetNotFoundError, match="at most 0 parameters"):
                client.begin_export("a", max_params=0)
            with pytest.raises(StudyFileError, match="cannot change when a study is resumed"):
                client.resume("a", overrides=["search.population=9"])
            assert client.exports("a") == []
            client.delete("a")
            assert list(client.studies()) == []
    with Client(url) as client, pytest.raises(ServerUnavailableError, match="glora-search serve"):
        client.status("a")


@pytest.mark.slow
def test_a_download_that_broke_off_goes_on(tmp_path: Path) -> None:
    """And one that began with another export begins anew."""
    with Database(storage(tmp_path)) as database:
        files = exported(tmp_path, record(database, "a", 1))
    out, part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    with served(tmp_path) as url, Client(url) as client:
        client.export("a", out)
        whole = out.read_bytes()
        for begun in (whole[:1000], b"another" * 100, whole, b"x" * (len(whole) + 1)):
            part.write_bytes(begun)
            client.export("a", out)
            assert out.read_bytes() == whole
            assert not part.exists()
    with zipfile.ZipFile(out) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == files


@pytest.mark.slow
def test_an_export_that_failed_is_an_error_and_one_that_is_there_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way it is asked for."""
    supernet = tmp_path / "supernet.safetensors"
    supernet.touch()
    digests = [outcome(0, n).candidate.subnet.digest for n in range(2)]
    made = tmp_path / "runs" / "a" / FOLDER / digests[0][:16]
    made.mkdir(parents=True)
    (made / "subnet.json").write_text('{"fingerprints": {"supernet": "1234"}}')
    made.with_suffix(".log").touch()
    with Database(storage(tmp_path)) as database:
        study = record(database, "a")
        study.set_attribute("fingerprints", {"supernet": "1234"})
        study.set_attribute("supernet", str(supernet))
    with served(tmp_path) as url, Client(url) as client:
        client.export("a", tmp_path / "one.zip", digest=digests[0])
        with zipfile.ZipFile(tmp_path / "one.zip") as packed:
            assert packed.namelist() == ["subnet.json"]
        folder, name = made.parent, digests[1][:16]
        (folder / f"{name}.log").write_text("error: the disk is full\n")
        with (folder / "lock").open("wb") as lock:  # as the process of an export holds it
            lock.write(name.encode())
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            # It ends while the client waits.
            monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(lock, fcntl.LOCK_UN))
            with pytest.raises(ArtifactError, match="trial 1: error: the disk is full"):
                client.export("a", tmp_path / "other.zip", digest=digests[1])
            monkeypatch.undo()
        assert [e["state"] for e in client.exports("a")] == ["ready", "failed"]
    assert not (tmp_path / "other.zip").exists()


@pytest.mark.slow
def test_tokens_are_brought(tmp_path: Path) -> None:
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    with served(tmp_path, token=TOKEN, read_token=READ_TOKEN) as url:
        with Client(url) as client, pytest.raises(ServiceError, match="bring a token"):
            client.status("a")
        with Client(url, token=READ_TOKEN) as client:
            assert client.status("a")["evaluated"] == 1
            with pytest.raises(ServiceError, match="only read") as caught:
                client.delete("a")
            assert caught.value.status == 403
        with Client(url, token=TOKEN) as client:
            client.delete("a")


@pytest.mark.slow
def test_each_route_has_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which asks for it, and gives or saves what is there. A new route needs a new method."""
    began = begun_by(monkeypatch)
    example, out = load_example("digits"), tmp_path / "out"
    app, asked = make_app(settings(tmp_path)), set()

    async def noting(scope: dict[str, Any], *channels: Any) -> None:
        asked.add((scope.get("method"), scope.get("path", "")))
        await app(scope, *channels)

    with Database(storage(tmp_path)) as database:
        study = record(database, "a")
        exports_of_a = exported(tmp_path, study)
        record(database, "b", 2)
        (tmp_path / "runs" / "a" / LOG).write_text("first\nlast\n")
    with serving(noting) as url, Client(url) as client:
        assert client.health() == {"status": "ok"}
        assert client.ready() == {"ready": True, "database": "ok", "ray": "not used"}
        assert client.validate(example)["search"]["population"] == 50
        assert client.create(example) == "digits"
        found = [s["study"] for s in client.studies(status="searching", running=False)]
        assert found == ["a", "b"]
        assert [s["study"] for s in client.studies(contains="b")] == ["b"]
        assert list(client.studies(running=True)) == []
        client.start("digits")
        client.resume("b")
        assert began == [("launch", "study.toml"), ("resume", "b")]
        assert client.status("a")["evaluated"] == 9
        assert len(list(client.outcomes("a"))) == 10
        since = next(client.events("a", since=8))
        assert [o["trial"] for o in since.data["outcomes"]] == [8, 9]
        best = client.winner("a")
        assert client.subnet("a", best["outcome"]["digest"]) == best
        assert client.front("a", measure="top1")
        assert client.history("a")["improvements"]
        assert client.logs("a") == "first\nlast\n"
        assert client.logs("a", tail=5) == "last\n"
        listed = client.artifacts("a")
        assert {f["name"]: f["bytes"] for f in listed} == {
            name: len(content) for name, content in exports_of_a.items()
        }
        client.artifact("a", "model.safetensors", out)
        assert out.read_bytes() == exports_of_a["model.safetensors"]
        with pytest.raises(ServiceError, match="no file 'x'"):
            client.artifact("a", "x", tmp_path / "x")
        client.report("a", out)
        assert "<html" in out.read_text()
        client.export("a", out)
        assert zipfile.is_zipfile(out)
        assert client.exports("a") == []
        with pytest.raises(StudyNotRunningError, match="no trained supernet"):
            client.begin_export("a", pick="loss")
        with pytest.raises(StudyNotRunningError, match="does not run"):
            client.stop("a")
        client.delete("a", files=True)
        assert not (tmp_path / "runs" / "a").exists()
    assert not list(tmp_path.glob("*.part"))
    never = {
        (method, path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if not any(
            method.upper() == asked_by and re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), asked_for)
            for asked_by, asked_for in asked
        )
    }
    assert never == {("get", "/metrics")}, "which is for Prometheus"


@pytest.mark.slow
def test_a_server_that_is_not_ready_says_why(tmp_path: Path) -> None:
    """What is no answer of a server, such as a proxy's, is an error."""
    gone = f"sqlite:///{tmp_path / 'gone' / 'studies.db'}"
    with served(tmp_path, storage=gone) as url, Client(url) as client:
        found = client.ready()
        assert (found["ready"], found["ray"]) == (False, "not used")
        assert "gone" in found["database"]

    async def proxy(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"no server"})

    with (
        serving(proxy) as url,
        Client(url) as client,
        pytest.raises(ServiceError, match="status 503"),
    ):
        client.ready()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20", "a b", "ä"])
def test_what_is_no_name_reaches_no_other_study(tmp_path: Path, name: str) -> None:
    """Names of studies need no quotes; without them these would ask for study a, or break."""
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    with served(tmp_path) as url, Client(url) as client:
        for ask in (client.status, client.stop, client.winner, client.logs):
            with pytest.raises(ServiceError) as refused:
                ask(name)
            assert refused.value.status == 422


def plain(kind: Any) -> Any:
    """A type without its name: fields with their types, for records of either sort."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: plain(field.annotation) for name, field in kind.model_fields.items()}
    if typing.is_typeddict(kind):
        return {name: plain(hint) for name, hint in typing.get_type_hints(kind).items()}
    if isinstance(kind, types.UnionType):
        return sorted((plain(part) for part in typing.get_args(kind)), key=repr)
    if typing.get_origin(kind) in (list, dict):
        return [typing.get_origin(kind), *(plain(part) for part in typing.get_args(kind))]
    return kind


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (answers.Status, shapes.StatusShape),
        (answers.Outcome, shapes.OutcomeShape),
        (answers.Export, exports.ExportShape),
        (answers.ExportFile, files.FileShape),
        (answers.Readiness, operational.ReadyShape),
    ],
)
def test_answers_have_the_servers_shapes(answer: Any, shape: type[BaseModel]) -> None:
    """The client does not import the server, so that it needs httpx alone."""
    assert plain(answer) == plain(shape)


def breaking(app: Application, breaks: list[tuple[int, int]]) -> Application:
    """An application that breaks its streams of events: each so many bytes into its n-th part."""

    async def broken(scope: dict[str, Any], receive: Any, send: Any) -> None:
        is_stream = scope.get("path", "").endswith("/events")
        last, length = breaks.pop(0) if is_stream and breaks else (-1, 0)
        part = -1  # the head of the answer

        async def sending(message: dict[str, Any]) -> None:
            nonlocal part
            part += 1
            if part < last or last == -1:
                await send(message)
            if part == last:
                await send({**message, "body": message["body"][:length], "more_body": True})
                raise ConnectionAbortedError("the test ends this connection")

        await app(scope, receive, sending)

    return broken


def read_trials(events: Iterator[Event], until: int) -> list[int]:
    """The outcomes of a stream, until one has come and the state that counts it."""
    trials: list[int] = []
    for event in events:
        if event.kind == "outcomes":
            trials += [o["trial"] for o in event.data["outcomes"]]
        if event.kind == "state" and until in trials:
            return trials
    raise AssertionError("the stream has ended")


@pytest.mark.slow
def test_events_go_on_after_connections_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first event, between two, within later ones: each outcome comes exactly once."""
    monkeypatch.setattr("glora_search.client.client._RETRY_S", 0.01)
    breaks = [(2, 100), (3, 0), (3, 100), (2, 1)]  # part 1 says how to retry, 2 has 500 outcomes
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1200)
    with serving(breaking(make_app(settings(tmp_path)), breaks)) as url, Client(url) as client:
        assert read_trials(client.events("a"), 1199) == list(range(1200))
    assert not breaks


@pytest.mark.slow
def test_events_go_on_at_a_server_that_was_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with what was recorded while there was none. A server that never was is an error."""
    with (
        ExitStack() as first,
        ExitStack() as second,
        Database(storage(tmp_path)) as database,
    ):
        study = record(database, "a", 5)
        url = first.enter_context(served(tmp_path))
        client = second.enter_context(Client(url))
        naps = []

        def sleep(_: float) -> None:
            naps.append(1)
            if len(naps) == 3:  # it asked twice where nobody listened
                app = make_app(settings(tmp_path))
                second.enter_context(serving(app, int(url.rpartition(":")[2])))

        monkeypatch.setattr("glora_search.client.client.time", types.SimpleNamespace(sleep=sleep))
        events = client.events("a")
        before = read_trials(events, 4)
        first.close()
        with study.hold():
            study.flush([outcome(1, index) for index in range(5)])
        after = read_trials(events, 9)
        events.close()
        assert before + after == list(range(10))
        assert len(naps) == 3
    with Client(url) as client, pytest.raises(ServerUnavailableError):
        next(client.events("a", last_id="5-"))
