"""The client, over a real connection to a real server."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from server_cases import READ_TOKEN, TOKEN, exported, record, served, storage

from glora_search.client import Client, ServerUnavailableError, ServiceError
from glora_search.recording import Database
from glora_search.study.errors import (
    StudyFileError,
    StudyHeldError,
    StudyNotFoundError,
    StudyNotRunningError,
)


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
            client.delete("a")
            assert list(client.studies()) == []
    with Client(url) as client, pytest.raises(ServerUnavailableError, match="glora-search serve"):
        client.status("a")


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
