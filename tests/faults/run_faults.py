"""Inject every fault into whole runs of the program, and print what became of them.

python tests/faults/run_faults.py                    a short version of each
python tests/faults/run_faults.py --full             what the table in tests/README.md shows
python tests/faults/run_faults.py --only driver_killed --json faults.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import database_faults
import disk_faults
import process_faults
from laboratory import Fault, Laboratory, NotHereError

FAULTS: dict[str, Fault] = {
    "driver_killed": process_faults.driver_killed,
    "driver_killed_postgres": database_faults.driver_killed_postgres,
    "worker_killed": process_faults.worker_killed,
    "worker_hangs": process_faults.worker_hangs,
    "training_worker_killed": process_faults.training_worker_killed,
    "node_killed": process_faults.node_killed,
    "head_killed": process_faults.head_killed,
    "deadly_candidates": process_faults.deadly_candidates,
    "too_many_deadly_candidates": process_faults.too_many_deadly_candidates,
    "nan_candidates": process_faults.nan_candidates,
    "postgres_stopped": database_faults.postgres_stopped,
    "postgres_restarted": database_faults.postgres_restarted,
    "sqlite_locked": database_faults.sqlite_locked,
    "full_disk_checkpoint": disk_faults.full_disk_checkpoint,
    "full_disk_export": disk_faults.full_disk_export,
    "full_disk_database": disk_faults.full_disk_database,
    "read_only_checkpoint": disk_faults.read_only_checkpoint,
    "read_only_export": disk_faults.read_only_export,
    "read_only_database": disk_faults.read_only_database,
    "truncated_checkpoint": disk_faults.truncated_checkpoint,
    "truncated_supernet": disk_faults.truncated_supernet,
}
_COLUMNS = ("injected", "survived", "reported", "lost", "duplicated", "same", "seconds")


def main() -> int:
    """Returns 1 if a fault that was injected did any harm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=FAULTS, help="this fault; repeatable")
    parser.add_argument("--full", action="store_true", help="as many and as long as in the table")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--json", type=Path, help="a file for the same as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        lab = Laboratory(Path(folder), full=arguments.full, seed=arguments.seed)
        for name in arguments.only or FAULTS:
            sys.stderr.write(f"{name} ...\n")
            rows.append({"fault": name, **_result(FAULTS[name], lab)})
            sys.stderr.write(f"  {rows[-1]}\n")
    document = {"made": _made(arguments.full, arguments.seed), "faults": rows}
    sys.stdout.write(f"{table(rows)}\n{json.dumps(document['made'])}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(any(not row["good"] and "not_here" not in row for row in rows))


def _result(fault: Fault, lab: Laboratory) -> dict[str, Any]:
    try:
        verdict = fault(lab)
    except NotHereError as reason:
        return {"good": False, "not_here": str(reason)}
    except (AssertionError, TimeoutError) as error:
        return {"good": False, "failed": str(error)}
    return {"good": verdict.is_good, **asdict(verdict)}


def table(rows: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| fault | injected | survived | reported | lost | duplicated | same result | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if why := row.get("not_here") or row.get("failed"):
            lines.append(f"| {row['fault']} | {' '.join(why.split())[-300:]} |")
            continue
        cells = ["yes" if row[c] is True else "NO" if row[c] is False else row[c] for c in _COLUMNS]
        lines.append(f"| {row['fault']} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _made(full: bool, seed: int) -> dict[str, Any]:
    from glora_search.stages.provenance import machine, versions

    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "full": full,
        "seed": seed,
        "commit": commit,
        "machine": machine(),
        "platform": platform.platform(),
        "versions": versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
