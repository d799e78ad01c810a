"""What all benchmarks share: taking turns, medians with their spread, and what it all ran on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "timm", "numpy", "optuna", "ray", "sqlalchemy", "psycopg")


def spread(samples: Sequence[float], *, digits: int = 4) -> dict[str, float]:
    """Median and quartiles of `samples`; of a single one, itself three times."""
    if len(samples) == 1:
        low = median = high = samples[0]
    else:
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"median": _short(median, digits), "q1": _short(low, digits), "q3": _short(high, digits)}


def in_turns(
    rivals: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each call, the rivals one after the other in every round.

    So a machine whose speed drifts is as fast for one as for the other, and `ratios` pairs calls
    that were neighbours in time.

    Args:
        rivals: Name to what is timed.
        rounds: Calls of each that count.
        warm_up: Rounds before, that do not.
        wait: Ends each call; on a GPU `torch.cuda.synchronize`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for round_ in range(warm_up + rounds):
        for name, call in rivals.items():
            wait()
            begin = time.perf_counter()
            call()
            wait()
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], to: str) -> dict[str, dict[str, float]]:
    """Each rival's time to that of `to`, round by round: median and quartiles."""
    return {
        name: spread([mine / floor for mine, floor in zip(times, seconds[to], strict=True)])
        for name, times in seconds.items()
        if name != to
    }


def report(benchmark: str, figures: Mapping[str, Any], *, device: str = "cpu") -> None:
    """Print one JSON line: the figures, and command, machine, versions and commit."""
    record = {"benchmark": benchmark, **figures, **_circumstances(device)}
    sys.stdout.write(json.dumps(record) + "\n")


def progress(text: str) -> None:
    """One line on stderr, for whoever waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _circumstances(device: str) -> dict[str, Any]:
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "command": "python tests/benchmarks/" + " ".join(command),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, {_cpu_name()}",
        "device": _device_name(device),
        "versions": {
            "python": platform.python_version(),
            **{name: version for name in _PACKAGES if (version := _version(name))},
        },
        "commit": _commit(),
    }


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((ln.partition(":")[2].strip() for ln in lines if ln.startswith("model name")), "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Of the checkout; of a copy without one, what the environment says."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
            )
        except OSError:  # a machine that has no git
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return os.environ.get("GLORA_SEARCH_COMMIT", "unknown")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return commit + (" with changes" if changed else "")


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
