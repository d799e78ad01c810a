"""The command for a GPU machine: its pieces, and a rehearsal where the service cannot be imported.

Most runs here are of small scripts in the place of benchmarks; the command itself is the real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from gpu_pieces import GRACE_S
from gpu_plan import MACHINE, PIECE_S, ROWS, Target
from gpu_reading import NoFiguresError, figures_of
from gpu_table import table

FOLDER = Path(__file__).parent
ABSENT = ("ray", "optuna", "alembic", "sqlalchemy", "pydantic", "click", "rich", "plotly", "psutil")
_PATIENCE_S = 300.0

_DRIVER = """
import json, pathlib, sys, time
import gpu, gpu_pieces, gpu_plan

class Clock:
    sleep = staticmethod(time.sleep)
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])

    def monotonic(self):
        begun = sum(path.stat().st_size for path in self.out.glob("work/*/slept"))
        return time.monotonic() + 1000 * begun

gpu_pieces.time = Clock()

def row(given):
    return gpu_plan.Row(what="a script", **{**given, "args": tuple(given.get("args", ()))})

rows = [row(given) for given in json.loads(sys.argv[1])]
say = str(pathlib.Path(__file__).with_name("say.py"))
sys.exit(gpu.main(sys.argv[2:], rows, row({"name": "machine", "script": say})))
"""

_SAY = """
import json
print(json.dumps({"value": 7}))
"""

_WAIT = """
import pathlib, sys, time
work = pathlib.Path(sys.argv[1])
(work / "begun").open("a").write("x")
print("waiting", file=sys.stderr, flush=True)
while not (work / "go").exists():
    time.sleep(0.01)
print('{"value": 1}')
"""

_SLEEP = """
import pathlib, sys, time
slept = pathlib.Path(sys.argv[1]) / "slept"
if not slept.exists() or slept.stat().st_size < 2:
    slept.open("a").write("x")
    time.sleep(10_000)
print('{"value": 2}')
"""

_FAIL = """
import sys
sys.exit("out of paper")
"""


class Command:
    """The command with rows of one's own, in `folder`."""

    def __init__(self, folder: Path, *rows: Mapping[str, Any]) -> None:
        self.folder, self.out = folder, folder / "out"
        scripts = {"say": _SAY, "wait": _WAIT, "sleep": _SLEEP, "fail": _FAIL, "driver": _DRIVER}
        for name, text in scripts.items():
            (folder / f"{name}.py").write_text(text)
        self.rows = [{**row, "script": str(folder / f"{row['script']}.py")} for row in rows]

    def start(self, *words: str) -> subprocess.Popen[str]:
        given = json.dumps(self.rows)
        return subprocess.Popen(
            [sys.executable, str(self.folder / "driver.py"), given, "--out", str(self.out), *words],
            env={**os.environ, "PYTHONPATH": str(FOLDER)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, dict[str, dict[str, Any]], str]:
        """Exit status, the records that it printed by row, and what it said."""
        process = self.start(*words)
        output, errors = process.communicate(timeout=_PATIENCE_S)
        records = [json.loads(line) for line in output.splitlines()]
        return process.returncode, {record["row"]: record for record in records}, errors

    def work(self, row: str) -> Path:
        return self.out / "work" / row

    def begun(self, row: str) -> int:
        """How often a waiting script was begun."""
        path = self.work(row) / "begun"
        return len(path.read_text()) if path.exists() else 0


SAY = {"name": "say", "script": "say"}
WAIT = {"name": "wait", "script": "wait", "args": ["{work}"]}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.01)


def test_a_row_that_fails_keeps_its_last_words_and_the_run_goes_on(tmp_path: Path) -> None:
    """A GPU is there for minutes: one broken row must not cost the others."""
    command = Command(tmp_path, {"name": "fail", "script": "fail"}, SAY)
    status, records, errors = command.run()
    assert status == 1
    assert records["fail"]["status"] == "failed"
    assert "out of paper" in records["fail"]["last_words"]
    assert records["say"]["status"] == "done"
    assert records["say"]["figures"] == {"value": 7}
    assert "out of paper" not in errors.split("| row")[0]
    kept = [json.loads(ln) for ln in (command.out / "results.jsonl").read_text().splitlines()]
    assert [record["row"] for record in kept] == ["machine", "fail", "say"]
    assert (command.out / "summary.md").read_text().strip() in errors


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_row_that_had_not_ended(tmp_path: Path) -> None:
    """SIGKILL in the middle: nothing that ended runs twice, and no row stays behind."""
    first = {"name": "first", "script": "wait", "args": ["{work}"]}
    command = Command(tmp_path, first, WAIT, SAY)
    command.work("first").mkdir(parents=True)
    (command.work("first") / "go").touch()
    process = command.start()
    until(lambda: command.begun("wait") == 1)
    (piece,) = _children(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not _alive(piece))
    (command.work("wait") / "go").touch()
    status, records, errors = command.run()
    assert status == 0, errors
    assert records.keys() == {"machine", "wait", "say"}, "first had ended before"
    assert command.begun("first") == 1
    assert command.begun("wait") == 2


@pytest.mark.slow
def test_a_row_that_takes_the_machine_down_twice_is_left(tmp_path: Path) -> None:
    """Otherwise the rows after it would never have their turn."""
    command = Command(tmp_path, WAIT, SAY)
    for n in (1, 2):
        process = command.start()
        until(lambda n=n: command.begun("wait") == n)  # type: ignore[misc]
        process.kill()
        process.communicate()
    status, records, _ = command.run()
    assert status == 1
    assert records["wait"]["status"] == "stopped"
    assert records["say"]["status"] == "done"
    assert command.begun("wait") == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_its_row_and_does_not_blame_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = Command(tmp_path, WAIT, SAY)
    for n in (1, 2, 3):  # more often than a row may take its run down
        process = command.start()
        until(lambda n=n: command.begun("wait") == n)  # type: ignore[misc]
        (piece,) = _children(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 130, errors
        assert "goes on" in errors
        assert "Traceback" not in errors
        assert not _alive(piece)
    (command.work("wait") / "go").touch()
    status, records, _ = command.run()
    assert status == 0
    assert records["wait"]["status"] == "done"


@pytest.mark.slow
def test_a_row_is_stopped_at_its_limit_unless_it_has_further_pieces(tmp_path: Path) -> None:
    """No piece may outlast the loan of a machine; a long training comes in several.

    The clock of the pieces leaps whenever a script begins to sleep, so no time has to pass.
    """
    sleeping = {"script": "sleep", "args": ["{work}"]}
    command = Command(
        tmp_path, {**sleeping, "name": "one"}, {**sleeping, "name": "many", "pieces": 3}, SAY
    )
    status, records, _ = command.run()
    assert status == 1
    assert records["one"]["status"] == "stopped"
    assert records["many"]["status"] == "done"
    assert records["many"]["figures"] == {"value": 2}
    assert records["say"]["status"] == "done"


@pytest.mark.slow
def test_no_row_begins_when_the_time_is_over(tmp_path: Path) -> None:
    """And the next call finds all of them still to do."""
    command = Command(tmp_path, SAY)
    status, records, errors = command.run("--minutes", "0")
    assert (status, records) == (3, {})
    assert "not run" in errors
    status, records, _ = command.run()
    assert status == 0
    assert records.keys() == {"machine", "say"}


@pytest.mark.slow
def test_what_is_missing_is_told_and_run_once_it_is_there(tmp_path: Path) -> None:
    command = Command(tmp_path, {**SAY, "needs": ["sklearn", "no_such_package"]})
    status, records, _ = command.run()
    assert status == 1
    assert records["say"]["status"] == "missing"
    assert "pip install no_such_package" in records["say"]["last_words"]
    command.rows[0]["needs"] = []
    status, records, _ = command.run()
    assert status == 0
    assert records["say"]["status"] == "done"


@pytest.mark.slow
def test_a_folder_holds_one_run_of_one_kind(tmp_path: Path) -> None:
    """Rehearsed numbers must not pass for measured ones, nor two runs share a GPU unknowingly."""
    command = Command(tmp_path, WAIT)
    process = command.start()
    until(lambda: command.begun("wait") == 1)
    status, _, errors = command.run()
    assert status == 1
    assert "another run works in" in errors
    (command.work("wait") / "go").touch()
    process.communicate(timeout=_PATIENCE_S)
    status, _, errors = command.run("--rehearse")
    assert status == 1
    assert "holds a run of kind 'gpu'" in errors


@pytest.mark.slow
def test_rows_can_be_chosen_and_run_again(tmp_path: Path) -> None:
    """From the beginning: what an earlier run left would make it a shorter one."""
    command = Command(tmp_path, SAY, {**SAY, "name": "other"})
    assert command.run("--only", "other")[1].keys() == {"machine", "other"}
    assert command.run("--skip", "say")[1].keys() == {"machine"}
    (command.work("other") / "left").touch()
    assert command.run("--again", "other")[1].keys() == {"machine", "say", "other"}
    assert not (command.work("other") / "left").exists()


def test_a_run_goes_on_in_another_checkout() -> None:
    """What is kept of a command names no folder: the next loan may be another machine."""
    for row in ROWS:
        assert not any(str(FOLDER.parents[1]) in word for word in row.command(rehearsal=False))


def test_targets_are_judged_on_their_side() -> None:
    """A figure that is not there is not reached, and a rehearsal reaches nothing."""
    most = Target(what="ratio", bound=1.05, sense="at most", value=lambda f: f["ratio"])
    least = Target(what="times", bound=5.0, sense="at least", value=lambda f: f["times"])
    assert most.judged({"ratio": 1.05})["reached"]
    assert not most.judged({"ratio": 1.06})["reached"]
    assert least.judged({"times": 5.0})["reached"]
    assert not least.judged({"times": 4.9})["reached"]
    absent = most.judged({})
    assert (absent["measured"], absent["reached"]) == (None, False)
    record = {"row": "step", "status": "done", "seconds": 2.0}
    shown = {**record, "targets": [most.judged({"ratio": 1}), least.judged({"times": 1})]}
    assert table([shown], rehearsal=False).count("yes") == 1
    assert table([shown], rehearsal=False).count("NO ") == 1
    assert "yes" not in table([shown], rehearsal=True)
    assert "none of these numbers counts" in table([shown], rehearsal=True)


@pytest.mark.parametrize(
    ("counts", "complete", "passes"),
    [
        ('tests="3" failures="0" errors="0" skipped="0"', True, True),
        ('tests="3" failures="1" errors="0" skipped="0"', True, False),
        ('tests="3" failures="0" errors="0" skipped="3"', True, False),
        ('tests="3" failures="0" errors="0" skipped="3"', False, True),
        ('tests="0" failures="0" errors="0" skipped="0"', True, False),
    ],
)
def test_tests_that_are_skipped_on_a_gpu_have_not_passed(
    tmp_path: Path, counts: str, complete: bool, passes: bool
) -> None:
    (tmp_path / "tests.xml").write_text(f"<testsuites><testsuite {counts} /></testsuites>")
    if passes:
        assert figures_of("junit", tmp_path, complete=complete)["tests"] == 3
        return
    with pytest.raises(NoFiguresError, match="not all tests passed"):
        figures_of("junit", tmp_path, complete=complete)


def test_no_piece_takes_more_than_eight_minutes() -> None:
    """Nor do two rows write to one place."""
    assert len({row.name for row in ROWS}) == len(ROWS) >= 14
    assert all(row.limit_s + GRACE_S <= PIECE_S == 480 for row in (MACHINE, *ROWS))
    assert all("cuda" in row.on_gpu for row in ROWS if row.script != "-m")
    assert not any("cuda" in row.rehearsed for row in ROWS)


_BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
"""

_FAKE_MPS = """#!/bin/sh
echo "$* $(test -d "$CUDA_MPS_PIPE_DIRECTORY" && echo there) $(test -n "$1" || cat)" >> {log}
"""

REHEARSED = (
    *("gpu-tests", "step-b16-bf16", "evaluation-bf16", "published-search", "adapter-bank"),
    *("sharing-mps", "precision", "whole-path"),
)


@pytest.mark.slow
def test_every_script_is_rehearsed_without_the_service(tmp_path: Path) -> None:
    """A GPU machine has neither Ray nor Optuna nor what comes with them, and a row that cannot run
    there would be noticed only when the machine is there. The MPS daemon is a stand-in.
    """
    rows = {row.name: row for row in ROWS}
    assert {rows[name].script for name in REHEARSED} == {row.script for row in ROWS}
    blocked, tools, log = tmp_path / "blocked", tmp_path / "tools", tmp_path / "mps.txt"
    for folder in (blocked, tools):
        folder.mkdir()
    (blocked / "sitecustomize.py").write_text(_BLOCK)
    daemon = tools / "nvidia-cuda-mps-control"
    daemon.write_text(_FAKE_MPS.format(log=log))
    daemon.chmod(0o755)
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(sys.executable, str(FOLDER / "gpu.py"), "--out", str(out), "--rehearse", "--preload"),
            *("--only", *REHEARSED),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(blocked),
            "PATH": os.pathsep.join([str(tools), os.environ["PATH"]]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    records = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        records[record["row"]] = record
    assert done.returncode == 0, done.stderr
    assert records.keys() == {"machine", *REHEARSED}
    for name, record in records.items():
        assert all(target["measured"] is not None for target in record["targets"]), name
        if name != "gpu-tests":
            assert {"versions", "device", "commit"} <= record["figures"].keys()
    assert records["gpu-tests"]["figures"]["tests"] >= 30
    export = records["whole-path"]["figures"]["export"]
    assert export["logits_moved_by_the_adapter"] > 10 * export["largest_logit_difference"]
    assert log.read_text().split() == ["-d", "there", "there", "quit"]


@pytest.mark.slow
def test_the_blocked_packages_cannot_be_imported(tmp_path: Path) -> None:
    """What the rehearsal stands on."""
    (tmp_path / "sitecustomize.py").write_text(_BLOCK)
    tried = "import importlib\n" + "".join(
        f"try:\n    importlib.import_module({name!r})\n    print({name!r})\nexcept ImportError:\n"
        "    pass\n"
        for name in ABSENT
    )
    done = subprocess.run(
        [sys.executable, "-c", tried],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def _children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
