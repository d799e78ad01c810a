"""The client, over a real connection to a real server."""

from __future__ import annotations

import fcntl
import time
import zipfile
from pathlib import Path

import pytest
from recording_cases import outcome
from server_cases import READ_TOKEN, TOKEN, exported, record, served, storage

from glora_search.client import Client, ServerUnavailableError, ServiceError
from glora_search.operations.served_exports import FOLDER
from glora_search.recording import Database
from glora_search.study.errors import (
    ArtifactError,
    StudyFileError,
    StudyHeldError,
    StudyNotFoundError,
    StudyNotRunningError,
    SubnetNotFoundError,
)


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
