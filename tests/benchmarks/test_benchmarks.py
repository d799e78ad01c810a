"""Every benchmark runs as it stands, on a CPU and in small, and prints what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fork_server import Running, script

FOLDER = Path(__file__).parent
VIT = ("--model", "test_vit")  # a twentieth of ViT-Tiny
SMALL: dict[str, tuple[str, ...]] = {
    "bench_adapter_bank.py": (*VIT, "--params", "30_000", "--batch", "2", "--rounds", "1"),
    "bench_driver.py": ("--candidates", "60", "--populations", "20", "--rounds", "1"),
    "bench_evaluation.py": (*VIT, "--images", "2", "--candidates", "2", "--rounds", "1"),
    "bench_help.py": ("--rounds", "1"),
    "bench_load.py": ("--workers", "4", "--seconds", "0.2"),
    "bench_precision.py": ("--epochs", "1", "--pretraining", "1", "--population", "12"),
    "bench_proposing.py": ("--history", "200", "--rounds", "1"),
    "bench_published_search.py": (
        *(*VIT, "--images", "2", "--population", "4", "--generations", "1"),
        *("--dense", "1"),
    ),
    "bench_scale.py": ("--sizes", "20", "60"),
    "bench_service.py": (*("--candidates", "60", "--requests", "1", "--rival-requests", "1"),),
    "bench_storage.py": ("--rounds", "1", "--opening", "60", "--rival-trials", "2"),
    "bench_supernet_step.py": (
        *(*VIT, "--batch", "2", "--rounds", "1", "--memory", "1"),
        *("--only", "floor", "ours", "dense", "--recipe"),
    ),
}


def test_every_benchmark_is_run_here() -> None:
    assert {path.name for path in FOLDER.glob("bench_*.py")} == SMALL.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_one_json_line(name: str, tmp_path: Path) -> None:
    running = Running(script, str(FOLDER / name), *SMALL[name], folder=tmp_path)
    running.succeed()
    (line,) = running.output.splitlines()
    figures: dict[str, Any] = json.loads(line)
    assert {"benchmark", "command", "machine", "device", "versions", "commit"} <= figures.keys()
