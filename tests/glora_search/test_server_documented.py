"""The requests in docs/service.md, as they are printed: curl sends them to a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from fork_server import Running, wait_until
from server_cases import (
    begun_by,
    exported,
    hold_until_interrupted,
    record,
    served,
    settings,
    storage,
)

from glora_search.client import Client
from glora_search.recording import Database
from glora_search.server.app import make_app
from glora_search.study.examples import load_example
from glora_search.study.objectives import BY_LOSS_AND_PARAMS
from glora_search.study.reading import parse_study

PAGE = Path(__file__).parents[2] / "docs" / "service.md"
NAME = "my-study"
REQUESTS = re.findall(r"^ {4}curl (.*\S) +# (\d{3})$", PAGE.read_text(), re.MULTILINE)


def write_studies(folder: Path) -> None:
    """A study of two objectives with an export and a supernet, and the file of another study."""
    example = load_example("digits")
    (folder / "study.toml").write_text(example)
    supernet = folder / "supernet.safetensors"
    supernet.touch()
    attributes = {
        "study": parse_study(tomllib.loads(example), origin=NAME).model_dump(mode="json"),
        "fingerprints": {"supernet": "1234"},
        "supernet": str(supernet),
    }
    with Database(storage(folder)) as database:
        study = record(database, NAME, objectives=BY_LOSS_AND_PARAMS)
        for key, value in attributes.items():
            study.set_attribute(key, value)
        exported(folder, study)


def curl(words: str, url: str, folder: Path) -> int:
    """Send a request from a shell; the status of the answer. Of a stream it reads one state."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = f"API={url}/api/v1; exec curl --silent --show-error --dump-header head {words}"
    with subprocess.Popen(
        ["sh", "-c", script],
        cwd=folder,
        env={**os.environ, "no_proxy": "*"},
        stdout=subprocess.PIPE,
        text=True,
    ) as sending:
        assert sending.stdout is not None
        for line in sending.stdout:
            if line == "event: state\n":
                sending.terminate()
    return int((folder / "head").read_text().split()[1])


@pytest.mark.slow
@pytest.mark.parametrize(("words", "status"), REQUESTS)
def test_documented_requests_are_answered_as_documented(
    words: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a study that is stopped; where it is to be stopped, it runs."""
    begun_by(monkeypatch)
    write_studies(tmp_path)
    with served(tmp_path) as url, Client(url) as client:
        if words.endswith("/stop"):
            driver = Running(hold_until_interrupted, storage(tmp_path), NAME, folder=tmp_path)
            assert wait_until(lambda: client.status(NAME)["running"], driver)
        assert curl(words, url, tmp_path) == int(status)
        if words.endswith("/stop"):
            driver.succeed()


def test_every_request_of_the_page_is_tried(tmp_path: Path) -> None:
    """Each has its status, and each is another route or another use of one."""
    assert len(REQUESTS) == PAGE.read_text().count("\n    curl ") >= 12
    documented = make_app(settings(tmp_path)).openapi()["paths"].values()
    answers = {
        code for methods in documented for told in methods.values() for code in told["responses"]
    }
    assert {status for _, status in REQUESTS} <= answers
