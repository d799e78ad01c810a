"""Exports of any subnet through the server: what is there, who may ask, and what is refused.

The end-to-end test of the server lets a real process make one.
"""

from __future__ import annotations

import fcntl
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from recording_cases import outcome
from server_cases import OWN, READ_TOKEN, TOKEN, record, settings, storage

from glora_search.operations.following import FollowedStudies
from glora_search.operations.served_exports import FOLDER, why_not
from glora_search.recording import Database, StudyRecord
from glora_search.server.app import make_app

EXPORT = "/api/v1/studies/a/export"
EXPORTS = "/api/v1/studies/a/exports"
DIGESTS = [outcome(0, index).candidate.subnet.digest for index in range(10)]
FAILED = 6


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(storage(tmp_path)) as opened:
        yield opened


@pytest.fixture
def study(tmp_path: Path, database: Database) -> StudyRecord:
    found = record(database, "a")
    found.set_attribute("fingerprints", {"supernet": "1234", "data": "5678"})
    found.set_attribute("supernet", str(tmp_path / "supernet.safetensors"))
    (tmp_path / "supernet.safetensors").touch()
    return found


@pytest.fixture
def client(tmp_path: Path, study: StudyRecord) -> Iterator[TestClient]:
    with TestClient(make_app(settings(tmp_path)), base_url=OWN) as opened:
        yield opened


def folder(tmp_path: Path) -> Path:
    found = tmp_path / "runs" / "a" / FOLDER
    found.mkdir(parents=True, exist_ok=True)
    return found


def make(tmp_path: Path, trial: int, *, supernet: str = "1234") -> None:
    """What the process of an export leaves."""
    place = folder(tmp_path) / DIGESTS[trial][:16]
    place.mkdir()
    told = {"digest": DIGESTS[trial], "fingerprints": {"supernet": supernet}}
    (place / "subnet.json").write_text(json.dumps(told))
    place.with_suffix(".log").write_text("writing the export\n{\n}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({}, 422, "say which subnet"),
        ({"digest": "0123456789"}, 404, "has 0 subnets whose digest begins with '0123456789'"),
        ({"digest": DIGESTS[FAILED]}, 404, "failed (OutOfMemoryError): nothing to export"),
        ({"digest": DIGESTS[0], "pick": "loss"}, 422, "digest and pick exclude each other"),
        ({"digest": DIGESTS[0], "max_params": 9}, 422, "digest and max_params exclude each other"),
        ({"digest": "no-hex-at-all"}, 422, "digest"),
        ({"pick": "best"}, 422, "pick"),
        ({"pick": "knee"}, 409, "a front needs two objectives"),
        ({"max_params": 0}, 404, "no evaluated subnet of at most 0 parameters"),
    ],
)
def test_what_cannot_be_exported_is_told_at_once(
    client: TestClient, query: dict[str, str], status: int, said: str
) -> None:
    answer = client.post(EXPORT, params=query)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert client.get(EXPORTS).json() == {"exports": []}


def test_what_has_no_supernet_here_is_not_exported_here(
    client: TestClient, database: Database, study: StudyRecord, tmp_path: Path
) -> None:
    """The process would train one, as a launch does."""

    def refused() -> str:
        answer = client.post(EXPORT, params={"pick": "loss"})
        assert answer.status_code == 409
        return str(answer.json()["detail"])

    (tmp_path / "supernet.safetensors").unlink()
    told = {"directory": str(tmp_path)}
    assert "is not on the server's machine" in refused()
    assert "glora-search export a --digest" in refused()
    study.set_attribute("supernet", None)  # before the end of a search its place is not recorded
    study.set_attribute("study", {"study": {"name": "a", **told}})
    assert f"({tmp_path / 'supernets'})" in refused()
    study.set_attribute("study", {"supernet": {"checkpoint": "/not/there"}})
    assert "(/not/there)" in refused()
    for here in (
        {"study": {"name": "a", **told}},
        {"supernet": {"checkpoint": str(tmp_path / "supernets" / "one.safetensors")}},
        {"cluster": {"artifacts": "s3://fetched"}},
    ):
        (tmp_path / "supernets").mkdir(exist_ok=True)
        (tmp_path / "supernets" / "one.safetensors").touch()
        study.set_attribute("study", here)
        assert why_not(FollowedStudies(database).read("a")) is None
    study.set_attribute("fingerprints", {"data": "5678"})
    assert "no trained supernet yet" in refused()


def test_an_export_that_is_there_is_sent(client: TestClient, tmp_path: Path) -> None:
    """Found by its digest, or as what somebody means by a pick; that of another study of the same
    name, which was deleted, is not.
    """
    losses = {n: outcome(0, n).loss or 9.0 for n in range(10)}
    best = min(losses, key=losses.__getitem__)
    other = (best + 1) % FAILED
    make(tmp_path, best)
    make(tmp_path, other, supernet="of another study")
    ready = client.post(EXPORT, params={"pick": "loss"})
    expected = {"trial": best, "digest": DIGESTS[best], "state": "ready", "problem": None}
    assert ready.status_code == 200
    assert ready.json().items() >= expected.items()
    assert client.get(EXPORTS).json()["exports"] == [ready.json()]
    for query in ({"digest": DIGESTS[best][:8]}, {"pick": "loss"}):
        sent = client.get(EXPORT, params=query)
        with zipfile.ZipFile(io.BytesIO(sent.content)) as packed:
            assert json.loads(packed.read("subnet.json"))["digest"] == DIGESTS[best]
    assert client.get(EXPORT, params=query, headers={"Range": "bytes=0-3"}).content == b"PK\3\4"
    for digest in (DIGESTS[other], DIGESTS[9]):
        missing = client.get(EXPORT, params={"digest": digest})
        assert (missing.status_code, "POST" in missing.json()["detail"]) == (404, True)
    assert client.get(EXPORT).status_code == 404, "the export that ends the search is another one"


def test_an_export_that_failed_says_why(client: TestClient, tmp_path: Path) -> None:
    log = folder(tmp_path) / f"{DIGESTS[2][:16]}.log"
    log.write_text("loading\nerror: the data are not what they were\n")
    (found,) = client.get(EXPORTS).json()["exports"]
    assert (found["trial"], found["state"]) == (2, "failed")
    assert found["problem"] == "error: the data are not what they were"
    refused = client.get(EXPORT, params={"digest": DIGESTS[2]})
    assert (refused.status_code, found["problem"] in refused.json()["detail"]) == (409, True)


@pytest.mark.slow
def test_one_export_of_a_study_is_made_at_a_time(client: TestClient, tmp_path: Path) -> None:
    """As long as its process lives, which holds a lock; whatever else stands in its files."""
    log = folder(tmp_path) / f"{DIGESTS[2][:16]}.log"
    log.write_text("training on\n")
    with (folder(tmp_path) / "lock").open("wb") as lock:
        lock.write(DIGESTS[2][:16].encode())
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun = client.post(EXPORT, params={"digest": DIGESTS[2]})
        assert (begun.status_code, begun.json()["state"]) == (202, "running")
        assert client.get(EXPORT, params={"digest": DIGESTS[2]}).status_code == 409
        held = client.post(EXPORT, params={"digest": DIGESTS[3]})
        assert (held.status_code, held.json()["type"].rpartition(":")[2]) == (409, "study-held")
        deleting = {"confirm": "a", "files": "delete"}
        assert client.delete("/api/v1/studies/a", params=deleting).status_code == 409
    assert client.get(EXPORTS).json()["exports"][0]["state"] == "failed"
    assert client.delete("/api/v1/studies/a", params=deleting).status_code == 204


def test_who_may_only_read_gets_what_is_there(tmp_path: Path, study: StudyRecord) -> None:
    make(tmp_path, 0)
    app = make_app(settings(tmp_path, token=TOKEN, read_token=READ_TOKEN))
    with TestClient(app, base_url=OWN, headers={"Authorization": f"Bearer {READ_TOKEN}"}) as client:
        query = {"digest": DIGESTS[0]}
        assert client.post(EXPORT, params=query).status_code == 403
        assert client.get(EXPORT, params=query).status_code == 200
