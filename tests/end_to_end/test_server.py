"""The server as a person meets it: a real process, a real study, from its file to its export."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from own_server import free_port, own_server
from tiny_study import N_SUBNETS, study_table

from glora_search.study.errors import StudyHeldError

pytestmark = pytest.mark.slow


def test_a_study_outlives_its_server_and_is_downloaded_from_the_next(tmp_path: Path) -> None:
    """It is launched by one server, which ends; another follows it to its end."""
    (tmp_path / "data").mkdir()
    table = study_table(tmp_path / "data")
    del table["study"]["directory"]
    port = free_port()
    with own_server(tmp_path, port) as client:
        assert client.create(table, start=True) == "tiny"
        holder = client.status("tiny")["held_by"]
        assert holder is not None
    os.kill(int(holder.rpartition(":")[2]), 0)  # it lives on
    with own_server(tmp_path, port) as client:
        kinds: dict[str, list[str]] = {}
        for event in client.events("tiny"):
            kinds.setdefault(event.kind, []).append(json.dumps(event.data))
            if event.kind == "state" and not event.data["running"]:
                break
        status = client.status("tiny")
        assert (status["status"], status["evaluated"]) == ("complete", N_SUBNETS)
        assert holder == json.loads(kinds["state"][0])["held_by"]
        outcomes = [o for text in kinds["outcomes"] for o in json.loads(text)["outcomes"]]
        assert [o["trial"] for o in outcomes] == list(range(N_SUBNETS))
        client.export("tiny", tmp_path / "tiny.zip")
        with zipfile.ZipFile(tmp_path / "tiny.zip") as packed:
            exported = json.loads(packed.read("subnet.json"))
            assert "model.safetensors" in packed.namelist()
        assert client.winner("tiny")["outcome"]["digest"] == exported["digest"]
        others = [o["digest"] for o in outcomes if o["digest"] != exported["digest"]]
        begun = client.begin_export("tiny", digest=others[0][:12])
        assert (begun["digest"], begun["state"]) == (others[0], "running")
        assert client.begin_export("tiny", digest=others[0]) == begun, "it is asked for once"
        with pytest.raises(StudyHeldError, match=f"of subnet {others[0][:16]}"):
            client.begin_export("tiny", digest=others[1])
        with pytest.raises(StudyHeldError, match="wait for its end"):
            client.delete("tiny", files=True)
    with own_server(tmp_path, port) as client:  # and the export goes on without it
        client.export("tiny", tmp_path / "other.zip", digest=others[0])
        with zipfile.ZipFile(tmp_path / "other.zip") as packed:
            assert json.loads(packed.read("subnet.json"))["digest"] == others[0]
        assert [e["state"] for e in client.exports("tiny")] == ["ready"]
        client.delete("tiny", files=True)
        assert not (tmp_path / "runs" / "tiny").exists()
