"""How long `--help` takes, as whoever types it sees it: whole processes, one after the other.

    python tests/benchmarks/bench_help.py

The rivals' commands are those installed beside this Python; one that is missing is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from measuring import in_turns, ratios, report, spread


def main() -> None:
    """Measure, and print one JSON line: seconds, and ratios to this project's command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    folder = Path(sys.executable).parent
    commands = {
        name: [str(folder / name), "--help"]
        for name in ("glora-search", "optuna", "ray")
        if (folder / name).exists()
    }
    commands["python alone"] = [sys.executable, "-c", "pass"]
    commands["python importing click"] = [sys.executable, "-c", "import click"]
    seconds = in_turns(
        {
            name: partial(subprocess.run, command, check=True, capture_output=True)
            for name, command in commands.items()
        },
        rounds=options.rounds,
    )
    report(
        "help",
        {
            "seconds": {name: spread(times) for name, times in seconds.items()},
            "ratio_to_ours": ratios(seconds, "glora-search"),
        },
    )


if __name__ == "__main__":
    main()
