"""The routes of the server, in this process, over a real database with real studies."""

from __future__ import annotations

import io
import os
import re
import socket
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fork_server import Running, wait_until
from recording_cases import SPACE, outcome
from server_cases import (
    OWN,
    begun_by,
    exported,
    hold_until_interrupted,
    keys_of,
    record,
    settings,
    storage,
)
from tiny_study import study_table

from glora_search.operations import jobs, serving
from glora_search.operations.running import LOG
from glora_search.recording import Database, Holder, service_record
from glora_search.server.app import make_app
from glora_search.study.errors import StudyHeldError, StudyNotRunningError
from glora_search.study.objectives import BY_LOSS
from glora_search.study.reading import parse_study
from glora_search.study.toml_text import toml_text

API = "/api/v1"


TOML = {"Content-Type": "application/toml"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(storage(tmp_path)) as opened:
        yield opened


@pytest.fixture
def client(tmp_path: Path, database: Database) -> Iterator[TestClient]:
    with TestClient(make_app(settings(tmp_path)), base_url=OWN) as opened:
        yield opened


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    """A study that strangers may send: nothing in it is a path."""
    (tmp_path / "backbone.safetensors").touch()  # nothing here reads it
    found = study_table(tmp_path)
    del found["study"]["directory"]
    del found["backbone"]["checkpoint"]
    return {**found, "backbone": {**found["backbone"], "pretrained": True}}


def test_every_route_answers_for_a_study(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    """With what it promises; and a route that is new has to be added here."""
    study = record(database, "a")
    exported(tmp_path, study)
    (tmp_path / "runs" / "a" / LOG).write_text("searching ...\n{\n}\n")
    digest = outcome(0, 0).candidate.subnet.digest
    expected: dict[str, dict[str, Any]] = {
        "/studies": {"total": 1, "next": None},
        "/studies/{name}": {"study": "a", "evaluated": 9, "failed": 1, "position": 10},
        "/studies/{name}/outcomes": {"next": 10, "more": False},
        "/studies/{name}/history": {},
        "/studies/{name}/front": {"measure": "loss"},
        "/studies/{name}/winner": {},
        "/studies/{name}/subnets/{digest}": {},
        "/studies/{name}/artifacts": {},
        "/studies/{name}/exports": {"exports": []},
        "/health": {"status": "ok"},
        "/ready": {"ready": True, "database": "ok", "ray": "not used"},
    }
    for route, fields in expected.items():
        answer = client.get(API + route.format(name="a", digest=digest))
        assert answer.status_code == 200, (route, answer.text)
        assert answer.json().items() >= fields.items(), route
    others = {
        *("/studies/{name}/logs", "/studies/{name}/export", "/studies/{name}/report"),
        *("/studies/{name}/artifacts/{file}", "/studies/{name}/events", "/studies/validate"),
        *("/studies/{name}/start", "/studies/{name}/stop", "/studies/{name}/resume"),
    }
    paths = client.get(f"{API}/openapi.json").json()["paths"]
    assert set(paths) == {API + route for route in (*expected, *others)} | {"/metrics"}
    assert client.get(f"{API}/studies/a").json()["progress"] == "searching ..."
    assert client.get(f"{API}/studies/a/logs").text.startswith("searching ...")


def test_results_are_those_of_the_database(client: TestClient, database: Database) -> None:
    study = record(database, "a")
    trials = study.trials()
    page = client.get(f"{API}/studies/a/outcomes").json()["outcomes"]
    assert [o["digest"] for o in page] == [o.candidate.subnet.digest for o in trials.values()]
    losses = {n: o.loss for n, o in trials.items() if o.loss is not None}
    best = min(losses, key=losses.__getitem__)
    winner = client.get(f"{API}/studies/a/winner").json()
    assert winner["outcome"]["trial"] == best
    layers = trials[best].candidate.subnet.layers
    assert winner["layers"] == {name: dict(layer.items()) for name, layer in layers.items()}
    front = client.get(f"{API}/studies/a/front").json()["outcomes"]
    assert front[-1]["trial"] == best
    assert [o["n_params"] for o in front] == sorted({o["n_params"] for o in front})
    history = client.get(f"{API}/studies/a/history").json()
    assert history["improvements"][-1]["trial"] == best
    assert history["generations"][0]["evaluated"] == 9


def test_pages_hold_every_outcome_once(client: TestClient, database: Database) -> None:
    """Also of a study that grows meanwhile."""
    study = record(database, "a")
    seen, since, grown = [], 0, False
    while True:
        page = client.get(f"{API}/studies/a/outcomes", params={"since": since, "limit": 3}).json()
        seen += [o["trial"] for o in page["outcomes"]]
        since = page["next"]
        if not page["more"]:
            if grown:
                break
            grown = True
            with study.hold():
                study.flush([outcome(1, index) for index in range(5)])
    assert seen == list(range(15))


def test_the_list_is_filtered_and_paged(client: TestClient, database: Database) -> None:
    for name in ("one", "two", "three"):
        record(database, name, 1)
    page = client.get(f"{API}/studies", params={"limit": 2}).json()
    assert ([s["study"] for s in page["studies"]], page["total"], page["next"]) == (
        ["one", "two"],
        3,
        2,
    )
    rest = client.get(f"{API}/studies", params={"limit": 2, "offset": 2}).json()
    assert ([s["study"] for s in rest["studies"]], rest["next"]) == (["three"], None)
    found = client.get(f"{API}/studies", params={"contains": "t", "status": "searching"}).json()
    assert [s["study"] for s in found["studies"]] == ["two", "three"]
    assert client.get(f"{API}/studies", params={"running": True}).json()["total"] == 0


def test_an_unknown_study_is_a_problem_on_every_route(
    client: TestClient, database: Database
) -> None:
    record(database, "known", 1)
    paths = client.get(f"{API}/openapi.json").json()["paths"]
    tried = 0
    for path, methods in paths.items():
        if "{name}" in path:
            for method in methods:
                url = path.format(name="unknow", digest="0" * 8, file="x")
                answer = client.request(method, url, params={"confirm": "unknow"})
                assert answer.status_code == 404, (method, path, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["type"].endswith(":study-not-found"), path
                assert "known" in answer.json()["detail"]
                tried += 1
    assert tried >= 14


def test_mistakes_are_told_at_once_with_keys_and_lines(client: TestClient) -> None:
    text = '[study]\nname = "x"\ncolour = 1\n\n[search]\npopulation = 0\n'
    for path in ("/studies/validate", "/studies"):
        answer = client.post(API + path, content=text, headers=TOML)
        assert answer.status_code == 422
        found = {m["key"]: m["line"] for m in answer.json()["mistakes"]}
        assert found == {
            "study.colour": 3,
            "search.population": 6,
            "backbone": None,
            "data": None,
            "space": None,
        }
    as_json = client.post(f"{API}/studies", json={"study": {"name": "x"}}).json()
    assert keys_of(as_json["mistakes"]) == {"backbone", "data", "space"}
    for body in (
        b"[study",
        b"\xff",
        b"a = " + b"[" * 5000,
        b"a." * 5000 + b"a = 1",
        b"[search]\nmax_params = nan",
    ):
        unreadable = client.post(f"{API}/studies", content=body, headers=TOML)
        assert unreadable.status_code == 422
    assert client.get(f"{API}/studies").json()["total"] == 0


def test_a_study_is_created_and_started_once(
    client: TestClient, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever server; a process that ended frees it."""
    began = begun_by(monkeypatch)
    checked = client.post(f"{API}/studies/validate", json=table)
    assert checked.json()["resolved"]["search"]["population"] == 8
    assert client.get(f"{API}/studies/tiny").status_code == 404
    created = client.post(f"{API}/studies", content=toml_text(table), headers=TOML)
    assert (created.status_code, created.json()) == (201, {"study": "tiny", "status": "created"})
    assert client.get(created.headers["location"]).json()["planned"] == 24
    assert client.post(f"{API}/studies", json=table).status_code == 409
    assert client.post(f"{API}/studies/tiny/resume").status_code == 409
    assert client.post(f"{API}/studies/tiny/stop").json()["type"].endswith("study-not-running")
    assert client.post(f"{API}/studies/tiny/start").json()["status"] == "starting"
    again = client.post(f"{API}/studies/tiny/start")
    assert (again.status_code, again.json()["type"].rpartition(":")[2]) == (409, "study-held")
    assert began == [("launch", "study.toml")]
    assert client.delete(f"{API}/studies/tiny", params={"confirm": "tiny"}).status_code == 409


def test_a_study_that_runs_is_neither_resumed_nor_deleted(
    client: TestClient, database: Database
) -> None:
    study = record(database, "a")
    with study.hold():
        assert client.get(f"{API}/studies/a").json()["running"]
        for answer in (
            client.post(f"{API}/studies/a/resume"),
            client.post(f"{API}/studies/a/start"),
            client.delete(f"{API}/studies/a", params={"confirm": "a"}),
        ):
            assert answer.status_code == 409
    assert not client.get(f"{API}/studies/a").json()["running"]


def test_a_study_is_resumed_with_changes_that_find_the_same(
    client: TestClient,
    database: Database,
    table: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the command line accepts them, and within what strangers may name."""
    began = begun_by(monkeypatch)
    stored = parse_study(table, origin="a test").model_dump(mode="json")
    database.create_study("a", space=SPACE, objectives=BY_LOSS, attributes={"study": stored})
    url = f"{API}/studies/a/resume"
    for override, said in {
        "search.population=9": "cannot change when a study is resumed",
        "cluster.workers=-1": "cluster.workers",
        "export.directory=/etc/exported": "a name in the study's own folder",
        "export.directory=picked": "a name in the study's own folder",
        "cluster.address=ray://elsewhere:1": "the server decides",
        "cluster.artifacts=s3://theirs": "cluster.artifacts",
        "no-override": "no-override",
        f"cluster.workers={'[' * 1900}": "nested too deeply",
        f"cluster.workers={{a{'.a' * 900}=1}}": "nested too deeply",
        "search.flush_s=nan": "cannot be read",
    }.items():
        refused = client.post(url, json={"overrides": [override]})
        assert (refused.status_code, said in refused.json()["detail"]) == (422, True), refused.text
    assert client.post(url, json={"set": []}).status_code == 422
    assert not began
    given = ["cluster.workers=3", "export.directory=mine", "search.flush_s=0.5"]
    assert client.post(url, json={"overrides": given}).status_code == 202
    mine = tmp_path.resolve() / "runs" / "a" / "mine"
    sets = ("cluster.workers=3", f'export.directory="{mine}"', "search.flush_s=0.5")
    resumed = ("resume", "a", *(word for each in sets for word in ("--set", each)))
    assert began == [resumed]


@pytest.mark.slow
def test_the_page_resumes_with_changes_too(
    database: Database,
    client: TestClient,
    table: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One a line, of which none is read where one is wrong."""
    began = begun_by(monkeypatch)
    stored = parse_study(table, origin="a test").model_dump(mode="json")
    database.create_study("a", space=SPACE, objectives=BY_LOSS, attributes={"study": stored})

    def resume(lines: str) -> Any:
        own = {"Origin": str(client.base_url)}
        return client.post(
            "/studies/a/resume", data={"overrides": lines}, headers=own, follow_redirects=False
        )

    refused = resume("cluster.workers=3\nsearch.population=9")
    assert refused.status_code == 422
    assert "cannot change when a study is resumed" in refused.text
    assert not began
    assert resume("cluster.workers = 3\r\n\r\nsearch.flush_s=0.5").status_code == 303
    assert began == [
        ("resume", "a", "--set", "cluster.workers=3", "--set", "search.flush_s=0.5"),
    ]


@pytest.mark.slow
def test_stopping_interrupts_the_process_that_drives_a_study(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    """As Ctrl-C would: a real one, that holds the lease. Never a server that is about to start
    it.
    """
    record(database, "a", 1)
    running = Running(hold_until_interrupted, storage(tmp_path), "a", folder=tmp_path)
    assert wait_until(lambda: client.get(f"{API}/studies/a").json()["running"], running)
    stopped = client.post(f"{API}/studies/a/stop")
    assert stopped.status_code == 202
    running.succeed()
    assert running.output == "interrupted\n"
    assert client.post(f"{API}/studies/a/stop").status_code == 409
    service = database.create_service("b", space=SPACE, attributes={"table": {}})
    with service.claim():
        refused = client.post(f"{API}/studies/b/stop")
    assert (refused.status_code, "in a moment" in refused.json()["detail"]) == (409, True)


def test_deleting_asks_for_the_name_and_leaves_others(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    """And a later study of the same name shows nothing of the one before."""
    record(database, "a")
    kept = record(database, "kept")
    exported(tmp_path, kept)
    (tmp_path / "runs" / "a").mkdir()
    assert client.get(f"{API}/studies/a/outcomes").json()["next"] == 10
    assert client.delete(f"{API}/studies/a").status_code == 422
    assert client.delete(f"{API}/studies/a", params={"confirm": "b"}).status_code == 422
    query = {"confirm": "a", "files": "delete"}
    assert client.delete(f"{API}/studies/a", params=query).status_code == 204
    assert client.get(f"{API}/studies/a").status_code == 404
    assert not (tmp_path / "runs" / "a").exists()
    assert (tmp_path / "runs" / "kept" / "export").is_dir()
    assert len(kept.trials()) == 10
    record(database, "a", 3, salt=1)
    new = client.get(f"{API}/studies/a/outcomes").json()["outcomes"]
    assert [o["digest"] for o in new] == [
        outcome(0, index, salt=1).candidate.subnet.digest for index in range(3)
    ]


def test_a_study_that_was_replaced_elsewhere_is_read_anew(
    client: TestClient, database: Database
) -> None:
    """Another server deleted it, and SQLite gave its key to another study of the same name."""
    record(database, "a")
    assert client.get(f"{API}/studies/a/outcomes").json()["next"] == 10
    database.delete("a")
    record(database, "a", 10, salt=1)
    found = client.get(f"{API}/studies/a/outcomes").json()["outcomes"]
    assert found[0]["digest"] == outcome(0, 0, salt=1).candidate.subnet.digest


def test_an_export_is_a_zip_of_which_parts_can_be_asked(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    study = record(database, "a")
    assert client.get(f"{API}/studies/a/export").status_code == 404
    files = exported(tmp_path, study)
    whole = client.get(f"{API}/studies/a/export")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == files
    part = client.get(f"{API}/studies/a/export", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    listed = client.get(f"{API}/studies/a/artifacts").json()["files"]
    assert {f["name"]: f["bytes"] for f in listed} == {n: len(c) for n, c in files.items()}
    one = client.get(
        f"{API}/studies/a/artifacts/model.safetensors", headers={"Range": "bytes=-256"}
    )
    assert (one.status_code, one.content) == (206, bytes(range(256)))


def test_files_outside_of_a_studys_folder_are_not_served(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    """Neither by what is stored with a study, nor by a symbolic link in its folder."""
    study = record(database, "a")
    exported(tmp_path, study)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    export = tmp_path / "runs" / "a" / "export"
    (export / "link.txt").symlink_to(secret)
    (tmp_path / "runs" / "a" / LOG).symlink_to(secret)
    assert client.get(f"{API}/studies/a/artifacts/link.txt").status_code == 404
    assert client.get(f"{API}/studies/a/logs").status_code == 404
    for name in ("..%2f..%2fsecret.txt", "%2fetc%2fpasswd", "%2e%2e%2fstudies.db"):
        assert client.get(f"{API}/studies/a/artifacts/{name}").status_code in (404, 422), name
    exported(tmp_path, record(database, "b", 1))
    (tmp_path / "runs" / "c").symlink_to(export.parent)
    studies = {"a": study, "c": record(database, "c", 1)}
    for name, directory in (
        ("a", tmp_path),
        ("a", tmp_path / "runs"),
        ("a", tmp_path / "runs" / "b" / "export"),
        ("c", tmp_path / "runs" / "c" / "export"),
    ):
        studies[name].set_attribute("export", {"directory": str(directory)})
        for path in ("export", "artifacts", "artifacts/model.safetensors"):
            answer = client.get(f"{API}/studies/{name}/{path}")
            assert answer.status_code == 404, directory
            assert "not below" in answer.json()["detail"]


@pytest.mark.slow
def test_metrics_tell_what_the_database_knows(client: TestClient, database: Database) -> None:
    study = record(database, "a")
    with study.hold(ttl_s=3.0):
        study.flush([outcome(1, index) for index in range(4)])
        until = time.monotonic() + 60
        while getattr(study.holder, "flush_s", None) is None and time.monotonic() < until:
            time.sleep(0.05)
        text = client.get("/metrics").text
    assert 'glora_search_evaluations_total{state="complete",study="a"} 13.0' in text
    assert 'glora_search_evaluations_total{state="failed",study="a"} 1.0' in text
    assert 'glora_search_queue{study="a"} 36.0' in text
    assert 'glora_search_workers{study="a"} 3.0' in text
    (flush,) = re.findall(r'glora_search_flush_seconds{study="a"} (\S+)', text)
    assert float(flush) > 0
    assert 'glora_search_running{study="a"} 1.0' in text
    busy = [line for line in text.splitlines() if line.startswith("glora_search_busy_workers{")]
    seconds = sum(o.eval_s for o in study.trials().values())
    assert float(busy[0].split()[1]) == pytest.approx(seconds / 60)
    (share,) = re.findall(r'glora_search_busy_share{study="a"} (\S+)', text)
    assert float(share) == pytest.approx(seconds / 60 / 3)  # it asks for three workers


def test_the_busy_share_without_a_number_of_workers_is_of_those_that_were_seen(
    client: TestClient, database: Database
) -> None:
    """A study that asks for "auto" has as many as the cluster gives."""
    attributes = {"status": "searching", "study": {"cluster": {"workers": "auto"}}}
    study = database.create_study("a", space=SPACE, objectives=BY_LOSS, attributes=attributes)
    with study.hold():
        assert 'glora_search_busy_share{study="a"}' not in client.get("/metrics").text
        study.flush([replace(outcome(0, i), worker=f"host:{i % 2}", eval_s=9.0) for i in range(4)])
        text = client.get("/metrics").text
    assert 'glora_search_busy_share{study="a"} 0.3\n' in text  # of two workers, for 36 s of 60
    assert "glora_search_workers{" not in text


@pytest.mark.slow
def test_a_server_without_its_cluster_says_so(tmp_path: Path, table: dict[str, Any]) -> None:
    """Studies can be read and created; starting one is refused, and can be tried again."""
    away = "http://127.0.0.1:1"
    url = "postgresql://me@127.0.0.1/none"  # what jobs would be told; nothing connects to it
    app = make_app(settings(tmp_path, address=away, job_storage=url))
    with TestClient(app, base_url=OWN) as client:
        answer = client.get(f"{API}/ready")
        assert (answer.status_code, answer.json()["database"]) == (503, "ok")
        assert "no Ray at" in answer.json()["ray"]
        assert client.post(f"{API}/studies", json=table).status_code == 201
        for _ in range(2):
            refused = client.post(f"{API}/studies/tiny/start")
            assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (
                502,
                "cluster",
            )
        assert client.get(f"{API}/studies/tiny").json()["status"] == "created"
        table["study"]["name"] = "at-once"
        refused = client.post(f"{API}/studies?start=true", json=table)
        assert refused.status_code == 502
        assert client.get(f"{API}/studies/at-once").status_code == 404  # it can be tried again


def test_a_start_is_held_by_its_driver_however_long_it_prepares(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job the server is not the holder, and what a server began late is taken over late."""
    monkeypatch.setattr(service_record, "_CLAIM_S", 0.3)
    service = database.create_service("a", space=SPACE, attributes={"table": {}})
    with service.taken_over():  # nobody has asked for a start: a launch by hand
        assert service.starter is None
    with service.claim() as claim:
        claim.keep()  # a job was submitted
    starter = service.starter
    assert starter is not None
    assert not starter.is_here
    while service.starter is not None:  # the job waits for its turn for longer than that
        time.sleep(0.05)
    with service.taken_over():
        first = service.starter
        assert first is not None
        time.sleep(0.7)
        with pytest.raises(StudyHeldError, match="being started already"), service.claim():
            pass
        later = service.starter
        assert later is not None
        assert later.token == first.token
        assert later.until > first.until
        service.drop_claim()  # it is no server's claim any more
        assert service.starter is not None
    assert service.starter is None
    with service.claim() as claim:
        claim.keep()
    service.drop_claim()  # its job was stopped
    assert service.starter is None


def test_a_job_that_ended_before_it_drove_its_study_frees_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose packages are missing. What a process elsewhere drives is not freed."""
    monkeypatch.setattr(jobs, "running_job", lambda name, address: None)
    service = database.create_service("a", space=SPACE, attributes={"table": {}})
    with service.claim() as claim:
        claim.keep()
    with pytest.raises(StudyNotRunningError, match="its job has ended"):
        serving.stop_study(database, "a", "http://127.0.0.1:1")
    assert service.starter is None
    study = record(database, "b")
    monkeypatch.setattr(Holder, "is_here", False)
    with study.hold(), pytest.raises(StudyHeldError, match="stop it on that machine"):
        serving.stop_study(database, "b", "http://127.0.0.1:1")


def test_a_process_that_cannot_be_interrupted_is_told(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is another user's, or has ended just now."""

    def refuse(error: type[OSError]) -> Callable[[int, int], None]:
        def kill(pid: int, number: int) -> None:
            raise error

        return kill

    with record(database, "a").hold():
        for error, kind in {PermissionError: "held", ProcessLookupError: "not-running"}.items():
            monkeypatch.setattr(serving.os, "kill", refuse(error))
            refused = client.post(f"{API}/studies/a/stop")
            assert (refused.status_code, refused.json()["type"].endswith(kind)) == (409, True)


def test_a_study_that_is_being_resumed_has_a_holder(client: TestClient, database: Database) -> None:
    record(database, "a")
    service = database.create_service("a", space=SPACE, attributes={})
    with service.claim():
        told = client.get(f"{API}/studies/a").json()
    assert told["running"]
    assert told["held_by"] == f"{socket.gethostname()}:{os.getpid()}"


def test_a_damaged_study_can_be_deleted(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    """Also where no server has created it."""
    record(database, "a")
    with sqlite3.connect(tmp_path / "studies.db") as tables:
        tables.execute("UPDATE study_user_attributes SET value_json = '7' WHERE key LIKE '%space%'")
    assert client.get(f"{API}/studies/a").status_code == 409
    assert client.delete(f"{API}/studies/a", params={"confirm": "a"}).status_code == 204
    assert client.get(f"{API}/studies/a").status_code == 404


def test_a_study_that_the_list_calls_damaged_is_no_unexpected_error(
    client: TestClient, database: Database
) -> None:
    """What is stored with it can be odd although its record can be opened."""
    record(database, "a").set_attribute("finalists", [{"no": "finalist"}])
    fault = client.get(f"{API}/studies").json()["studies"][0]["fault"]
    answer = client.get(f"{API}/studies/a")
    assert answer.status_code == 409
    assert answer.json()["detail"] == fault
    assert "study 'a' is damaged" in fault


def test_a_study_that_is_held_keeps_what_the_server_has_of_it(database: Database) -> None:
    """A process drives it that no server knows of."""
    study = record(database, "a")
    database.create_service("a", space=SPACE, attributes={"table": {"kept": 1}})
    with study.hold(), pytest.raises(StudyHeldError):
        database.delete("a")
    assert database.services()["a"].attributes["table"] == {"kept": 1}


def test_files_that_stay_are_told(
    client: TestClient, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study is gone from the database all the same."""
    record(database, "a")
    (tmp_path / "runs" / "a").mkdir()

    def rmtree(path: Path) -> None:
        raise PermissionError(13, "not yours", str(path))

    monkeypatch.setattr(serving.shutil, "rmtree", rmtree)
    query = {"confirm": "a", "files": "delete"}
    told = client.delete(f"{API}/studies/a", params=query)
    assert (told.status_code, "remove it by hand" in told.json()["detail"]) == (409, True)
    assert client.get(f"{API}/studies/a").status_code == 404


def test_the_database_is_open_before_anybody_asks(tmp_path: Path) -> None:
    """Or whoever opens the page of a server that has just started would wait for that."""
    path = tmp_path / "early.db"
    with TestClient(make_app(settings(tmp_path, storage=f"sqlite:///{path}")), base_url=OWN):
        until = time.monotonic() + 60
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.02)
    assert path.exists()


def test_a_server_without_its_database_says_so(tmp_path: Path) -> None:
    """It starts all the same, and is ready when the database is there."""
    away = f"sqlite:///{tmp_path / 'later' / 'x.db'}"
    with TestClient(make_app(settings(tmp_path, storage=away)), base_url=OWN) as client:
        assert client.get(f"{API}/health").status_code == 200
        answer = client.get(f"{API}/ready")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert "no folder" in answer.json()["database"]
        problem = client.get(f"{API}/studies")
        assert problem.status_code == 503
        assert problem.headers["content-type"] == "application/problem+json"
        (tmp_path / "later").mkdir()
        assert client.get(f"{API}/ready").json()["ready"]
