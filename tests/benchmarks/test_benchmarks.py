"""Every benchmark runs as it stands, on a CPU and in small, and prints what it promises.

Those that need a GPU in earnest are rehearsed in test_gpu.py.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fork_server import Running, script
from gpu_plan import ROOT, ROWS

FOLDER = Path(__file__).parent
SMALL: dict[str, tuple[str, ...]] = {
    "bench_driver.py": ("--candidates", "60", "--populations", "20", "--rounds", "1"),
    "bench_help.py": ("--rounds", "1"),
    "bench_load.py": ("--workers", "4", "--seconds", "0.2"),
    "bench_page.py": ("--candidates", "60", "--loads", "1", "--starts", "1"),
    "bench_proposing.py": ("--history", "200", "--rounds", "1"),
    "bench_readers.py": (
        *("--candidates", "50", "--slice", "50", "--pairs", "1", "--readers", "3"),
        *("--eval-ms", "0.1", "--setups", "page", "readers"),
    ),
    "bench_scale.py": ("--sizes", "20", "60"),
    "bench_service.py": (
        *("--candidates", "60", "--requests", "1", "--rival-requests", "1"),
        *("--patience-s", "0.001"),  # it gives its rival up
    ),
    "bench_storage.py": ("--rounds", "1", "--opening", "60", "--rival-trials", "2"),
}
BROWSED = {"bench_page.py", "bench_readers.py"}
"""Those that open a page in Chromium."""

ON_GPU = {row.script for row in ROWS if row.script.startswith("bench_")}
"""Those that test_gpu.py rehearses."""


def test_every_benchmark_is_run_here_or_rehearsed() -> None:
    assert not SMALL.keys() & ON_GPU
    assert {path.name for path in FOLDER.glob("bench_*.py")} == SMALL.keys() | ON_GPU


def parse_as_on_a_gpu() -> None:
    """Have each script parse the options that it gets on a GPU; in a process of its own."""
    sys.path.insert(0, str(FOLDER))
    study = tomllib.loads((ROOT / "glora_search/study/examples/vtab-vit-b16.toml").read_text())
    for row in ROWS:
        if row.script != "-m":
            script, *sys.argv[1:] = row.words(FOLDER, rehearsal=False)
            parse = runpy.run_path(script, run_name="parsed")["_arguments"]
            args = parse(study) if row.script == "bench_whole_path.py" else parse()
            assert args.device == "cuda"


@pytest.mark.slow
def test_scripts_know_the_options_that_they_get_on_a_gpu(tmp_path: Path) -> None:
    """A rehearsal gives others, and a wrong one would be noticed when the GPU is there."""
    Running(parse_as_on_a_gpu, folder=tmp_path).succeed()


def train_as_a_study_does() -> None:
    """Compare the designs of the whole path with a study's and the published one."""
    sys.path.insert(0, str(FOLDER))
    from bench_whole_path import DESIGNS

    from glora_search.study.network_sections import SupernetSection
    from supernet import Design

    section = SupernetSection()
    assert DESIGNS["fair"] == Design(paths="fair", paths_per_step=section.paths_per_step)
    assert section.paths == "fair"
    assert DESIGNS["published"] == Design()


@pytest.mark.slow
def test_the_whole_path_trains_as_a_study_file_does_by_default(tmp_path: Path) -> None:
    """Its settings are written once more there, since a GPU machine has no pydantic."""
    Running(train_as_a_study_does, folder=tmp_path).succeed()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_one_json_line(name: str, tmp_path: Path) -> None:
    if name in BROWSED:
        pytest.importorskip("playwright", reason="playwright is not installed")
        if not (shutil.which("chromium") or shutil.which("chromium-browser")):
            pytest.skip("no chromium on this machine")
    running = Running(script, str(FOLDER / name), *SMALL[name], folder=tmp_path)
    running.succeed()
    (line,) = running.output.splitlines()
    figures: dict[str, Any] = json.loads(line)
    assert {"benchmark", "command", "machine", "device", "versions", "commit"} <= figures.keys()
    assert figures.get("readers_that_got_each_outcome_once") == figures.get("readers_in_all")
