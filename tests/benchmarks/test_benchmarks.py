"""Every benchmark runs as it stands, on a CPU and in small, and prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
VIT = ("--model", "vit_tiny_patch16_224")
SMALL: dict[str, tuple[str, ...]] = {
    "bench_driver.py": ("--candidates", "60", "--populations", "20", "--rounds", "1"),
    "bench_evaluation.py": (*VIT, "--images", "2", "--candidates", "2", "--rounds", "1"),
    "bench_help.py": ("--rounds", "1"),
    "bench_load.py": ("--workers", "4", "--seconds", "0.2"),
    "bench_precision.py": ("--epochs", "1", "--population", "12"),
    "bench_proposing.py": ("--history", "200", "--rounds", "1"),
    "bench_published_search.py": (
        *(*VIT, "--images", "2", "--population", "4", "--generations", "1"),
        *("--dense", "1"),
    ),
    "bench_scale.py": ("--sizes", "20", "60"),
    "bench_storage.py": ("--rounds", "1", "--opening", "60", "--rival-trials", "2"),
    "bench_supernet_step.py": (
        *(*VIT, "--batch", "2", "--rounds", "1", "--memory", "1"),
        *("--only", "floor", "ours", "dense", "--recipe"),
    ),
}


def test_every_benchmark_is_run_here() -> None:
    assert {path.name for path in FOLDER.glob("bench_*.py")} == SMALL.keys()


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_prints_one_json_line(script: str) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / script, *SMALL[script]],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = done.stdout.splitlines()
    figures: dict[str, Any] = json.loads(line)
    assert {"benchmark", "command", "machine", "device", "versions", "commit"} <= figures.keys()
