"""The command line of `--server URL`, over a real connection to a real server."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fork_server import Running, wait_until
from recording_cases import SPACE
from server_cases import (
    TOKEN,
    begun_by,
    exported,
    hold_until_interrupted,
    record,
    served,
    storage,
)

from glora_search.cli import remote_verbs
from glora_search.cli.commands import cli
from glora_search.client import Client
from glora_search.operations import jobs
from glora_search.operations.running import LOG, ProcessRunner
from glora_search.recording import Database
from glora_search.server import job_logs
from glora_search.study.errors import StudyFileError, StudyNotFoundError, StudyNotRunningError
from glora_search.study.examples import load_example
from glora_search.study.objectives import BY_LOSS
from glora_search.study.reading import parse_study


class Terminal:
    """Where somebody types."""

    def __init__(self, url: str) -> None:
        self._url = url

    def says(self, *words: str | Path) -> str:
        """What a command prints that succeeds."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def run(self, *words: str | Path) -> Result:
        return CliRunner().invoke(cli, ["--server", self._url, *map(str, words)])


@pytest.mark.slow
def test_results_are_shown_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table, as JSON, as a file, as a folder; what is there already stays."""
    monkeypatch.chdir(tmp_path)
    with Database(storage(tmp_path)) as database:
        files = exported(tmp_path, record(database, "a"))
        record(database, "b", 1)
    with served(tmp_path) as url:
        terminal = Terminal(url)
        assert "9 of 50" in terminal.says("status")
        assert "a: searching, 9 of 50 evaluated, 1 failed" in terminal.says("status", "a")
        assert json.loads(terminal.says("status", "a", "--json"))["evaluated"] == 9
        assert terminal.says("export", "a") == "a.zip\n"
        interrupted = Path(".mine.partly")  # while an earlier call unpacked
        interrupted.mkdir()
        (interrupted / "half").touch()
        shutil.copy("a.zip", "mine.zip")
        assert terminal.says("export", "a", "--out", "mine") == "mine\n"
        assert not interrupted.exists()
        assert {p.name: p.read_bytes() for p in Path("mine").iterdir()} == files
        assert not Path("mine.zip").exists()
        for there in ("mine", "."):
            refused = terminal.run("export", "a", "--out", there)
            assert (refused.exit_code, f"{there} is there already" in refused.output) == (2, True)
        assert terminal.says("report", "a") == "a.html\n"
        assert "<html" in Path("a.html").read_text()
        assert "give --confirm b" in terminal.run("delete", "b", "--confirm", "a").output
        assert terminal.says("delete", "b", "--confirm", "b") == "b\n"
        assert isinstance(terminal.run("status", "b").exception, StudyNotFoundError)
        assert isinstance(terminal.run("stop", "a").exception, StudyNotRunningError)
        assert "does not go with --server" in terminal.run("demo").output


@pytest.mark.slow
def test_studies_are_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With overrides of the study file, and later of what may change."""
    began = begun_by(monkeypatch)
    monkeypatch.setenv("GLORA_SEARCH_SERVER_TOKEN", TOKEN)
    file = tmp_path / "study.toml"
    file.write_text(load_example("digits"))
    kept = parse_study(tomllib.loads(load_example("digits")), origin="b").model_dump(mode="json")
    with Database(storage(tmp_path)) as database:
        database.create_study("b", space=SPACE, objectives=BY_LOSS, attributes={"study": kept})
    with served(tmp_path, token=TOKEN) as url:
        terminal = Terminal(url)
        wrong = terminal.run("launch", file, "--set", "search.popluation=9").exception
        assert isinstance(wrong, StudyFileError)
        assert "did you mean 'population'" in str(wrong)
        assert not began
        told = terminal.says("launch", file, "--set", "search.population=60", "--detach", "--json")
        assert json.loads(told)["study"] == "digits"
        written = tmp_path / "runs" / "digits" / "study.toml"
        assert "population = 60" in written.read_text()
        terminal.says("resume", "b", "--set", "cluster.workers=2", "--detach")
        table = {**tomllib.loads(load_example("digits")), "study": {"name": "created"}}
        with Client(url, token=TOKEN) as client:
            assert client.create(table) == "created"
        assert "created: starting" in terminal.says("start", "created", "--detach")
    launched = ("launch", "study.toml")
    assert began == [launched, ("resume", "b", "--set", "cluster.workers=2"), launched]


def drive_until_told(url: str, name: str, end: str) -> None:
    """Be the process of a study, which is complete once there is a file."""
    with Database(url) as database:
        study = record(database, name)
        with study.hold():
            while not Path(end).exists():
                time.sleep(0.02)
            study.set_attribute("status", "complete")


@pytest.mark.slow
def test_a_launch_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells the log and the states on the way, and prints how the study stands at the end."""
    end, told = tmp_path / "end", list[str]()
    driving: list[Running] = []

    def begin(self: ProcessRunner, folder: Path, *words: str) -> int:
        (folder / LOG).write_text("training the supernet\n")
        arguments = (self.storage, folder.name, str(end))
        driving.append(Running(drive_until_told, *arguments, folder=tmp_path))
        return driving[0].pid

    def tell(line: str) -> None:
        told.append(line)
        if {"training the supernet", "searching: 9 of 50"} <= {t.partition(",")[0] for t in told}:
            end.touch()

    monkeypatch.setattr(ProcessRunner, "_begin", begin)
    monkeypatch.setattr(remote_verbs, "tell", tell)
    file = tmp_path / "study.toml"
    file.write_text(load_example("digits"))
    with served(tmp_path) as url:
        shown = Terminal(url).says("launch", file)
        driving[0].succeed()
    assert shown.startswith("digits: complete, 9 of 50 evaluated, 1 failed\nbest: trial ")
    assert told[-1].startswith("complete: 9 of 50, best so far: val loss 0.")


@pytest.mark.slow
def test_a_study_is_stopped_and_its_log_shown(tmp_path: Path) -> None:
    """`stop` ends when the study has; `logs` prints what is in the file and nothing else."""
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / LOG).write_text("first\nlast")
    with served(tmp_path) as url, Client(url) as client:
        terminal = Terminal(url)
        assert terminal.says("logs", "a") == "first\nlast"
        driver = Running(hold_until_interrupted, storage(tmp_path), "a", folder=tmp_path)
        assert wait_until(lambda: client.status("a")["running"], driver)
        shown = terminal.says("stop", "a")
        assert not client.status("a")["running"]
        driver.succeed()
    assert driver.output == "interrupted\n"
    assert shown.startswith("a: searching, 1 of 50 evaluated, 0 failed\nbest: trial 0")
    assert "last words: last\n" in shown
    assert shown.endswith("nothing drives it; go on with `resume a`\n")


@pytest.mark.slow
def test_why_a_job_ended_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has of its log may be from before the end."""
    log = ["loading torch\n"]
    monkeypatch.setattr(jobs, "job_log", lambda name, address: log[-1])
    monkeypatch.setattr(job_logs, "_FRESH_S", 3600.0)
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    cluster = {"address": "http://127.0.0.1:1", "job_storage": "cluster"}
    with served(tmp_path, **cluster) as url, Client(url) as client:
        while client.status("a")["progress"] != "loading torch":
            time.sleep(0.02)
        log.append("loading torch\nerror: the cluster has 0 CPU\n")
        assert client.status("a")["progress"] == "loading torch"
        assert "last words: error: the cluster has 0 CPU\n" in Terminal(url).says("status", "a")
