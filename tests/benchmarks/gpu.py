"""Everything that needs a GPU, by one command, in pieces of at most eight minutes.

    python tests/benchmarks/gpu.py --out DIR               # all rows, on the first CUDA device
    python tests/benchmarks/gpu.py --out DIR --minutes 9   # so long; the same command goes on
    python tests/benchmarks/gpu.py --out DIR --rehearse    # on the CPU, with a tiny network
    python tests/benchmarks/gpu.py --list

Each row is a benchmark of this folder, or pytest, in a process of its own. What has ended is kept
in DIR: a run that was interrupted, killed or ran out of time goes on with the next row when the
same command is given again. A row that fails is recorded with its last words, and the run goes on.
Needs Python 3.11 with torch and timm, and neither Ray nor Optuna nor an installation of this
package; a row that needs more says what.

Prints one JSON line a row on stdout as it ends, and at the end a table against the targets on
stderr. DIR/results.jsonl and DIR/summary.md hold both for all rows.

Exit status: 0 all rows have ended well, 1 one has not, 2 wrong usage, 3 the time is over and rows
are left, 130 interrupted. A target that is missed is a result, not a failure.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from gpu_pieces import Ended, run_piece
from gpu_plan import MACHINE, NETWORK, ROOT, ROWS, Row
from gpu_reading import NoFiguresError, Reads, figures_of, last_words
from gpu_state import RunFolder, RunFolderError
from gpu_table import table
from measuring import progress

_LEAST_S: Final = 60.0  # with less time left no row begins
_PRELOADED: Final = ("torch", "timm", "supernet.data", "supernet.export")


class _TimeOverError(Exception):
    """The run has used its minutes."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One call of the command.

    Args:
        folder: Where everything is kept.
        rehearsal: Whether the CPU does it, with a tiny network.
        preloaded: Whether rows run in forks of this process.
        deadline: On the monotonic clock.
        environment: Of the rows.
    """

    folder: RunFolder
    rehearsal: bool
    preloaded: bool
    deadline: float
    environment: dict[str, str]

    def row(self, row: Row, position: str) -> dict[str, Any]:
        """Run a row to its end, unless it has ended before; returns how it ended.

        Raises:
            _TimeOverError: It has not ended, and goes on next time.
        """
        command = row.command(rehearsal=self.rehearsal)
        ended = self.folder.ended(row.name)
        if ended and ended["status"] != "missing" and ended["command"] == command:
            progress(f"{position} {row.name}: {ended['status']} before")
            return ended
        if ended:
            self.folder.forget(row.name)
        record: dict[str, Any] = {"row": row.name, "what": row.what, "command": command}
        if absent := missing(row):
            record |= {"status": "missing", "last_words": absent}
        else:
            record |= self._pieces(row, position)
        self.folder.end(row.name, record)
        progress(f"{position} {row.name}: {record['status']}")
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()
        return record

    def _pieces(self, row: Row, position: str) -> dict[str, Any]:
        work = self.folder.work(row.name)
        while self.folder.tries(row.name) <= row.pieces:
            left_s = self.deadline - time.monotonic()
            if left_s < min(_LEAST_S, row.limit_s):
                raise _TimeOverError
            limit_s = min(row.limit_s, left_s)
            self.folder.begin(row.name)
            progress(f"{position} {row.name}: {row.what} (at most {limit_s / 60:.1f} minutes)")
            try:
                ended = run_piece(
                    row.words(work, rehearsal=self.rehearsal),
                    folder=work,
                    limit_s=limit_s,
                    environment=self.environment,
                    preloaded=self.preloaded,
                    on_tick=_ticker(work, row.reads),
                )
            except BaseException:
                self.folder.take_back(row.name)  # whoever interrupts it does not blame it
                raise
            if ended.status is not None:
                return self._outcome(row, ended, work)
            if limit_s < row.limit_s:
                self.folder.take_back(row.name)
                raise _TimeOverError
            if row.pieces == 1:
                break
        return {
            "status": "stopped",
            "last_words": f"{last_words(work, row.reads)}\nit did not end within {row.pieces} x "
            f"{row.limit_s:g} s, or its run was killed too often",
        }

    def _outcome(self, row: Row, ended: Ended, work: Path) -> dict[str, Any]:
        found: dict[str, Any] = {"status": "done", "seconds": round(ended.seconds, 1)}
        words = last_words(work, row.reads)
        try:
            found["figures"] = figures_of(row.reads, work, complete=not self.rehearsal)
        except NoFiguresError as error:
            found |= {"status": "failed", "last_words": f"{words}\n{error}"}
        else:
            found["targets"] = [target.judged(found["figures"]) for target in row.targets]
        if ended.status:
            words = f"{words}\nexit status {ended.status}"
            found |= {"status": "failed", "last_words": words}
        return found


def missing(row: Row) -> str:
    """What a row needs and this machine has not, as one line; empty where nothing is missing."""
    packages = [name for name in row.needs if not _can_import(name)]
    words = []
    if packages:
        names = " ".join(_DISTRIBUTIONS.get(name, name) for name in packages)
        words.append(f"it imports {', '.join(packages)}: pip install {names}")
    if row.tool and shutil.which(row.tool) is None:
        words.append(f"it starts {row.tool}, which is not on the PATH")
    return "; ".join(words)


_DISTRIBUTIONS: Final = {"sklearn": "scikit-learn", "PIL": "pillow"}


def _can_import(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _ticker(work: Path, reads: Reads) -> Any:
    """Tells where a row is: on a terminal all the time, else once a minute."""
    begin = told = time.monotonic()

    def tick(seconds: float) -> None:
        nonlocal told
        shown = sys.stderr.isatty()
        if time.monotonic() - told < (1.0 if shown else 60.0):
            return
        told = time.monotonic()
        latest = last_words(work, reads, lines=1)[:80]
        text = f"  {told - begin:.0f} s: {latest}"
        sys.stderr.write(f"\r{text:<100}\r" if shown else f"{text}\n")
        sys.stderr.flush()

    return tick


def main(
    argv: Sequence[str] | None = None, rows: Sequence[Row] = ROWS, first: Row = MACHINE
) -> int:
    """Run the rows that have not ended.

    Args:
        argv: The command line; this process's if not given.
        rows: What to run.
        first: What to run before, each time; if it fails, nothing else runs.

    Returns:
        The exit status.
    """
    parser = _parser([row.name for row in rows])
    args = parser.parse_args(argv)
    if args.list:
        for row in rows:
            targets = "".join(f"\n    {t.what}: {t.sense} {t.bound:g}" for t in row.targets)
            sys.stdout.write(f"{row.name:18} {row.what}{targets}\n")
        return 0
    if args.out is None:
        parser.error("--out DIR is needed: where results are kept")
    if args.preload and not args.rehearse:
        parser.error("--preload is for rehearsals: CUDA does not work in a fork")
    if absent := [name for name in NETWORK if not _can_import(name)]:
        names = " ".join(_DISTRIBUTIONS.get(name, name) for name in absent)
        progress(f"error: this Python has no {', '.join(absent)}: pip install {names}")
        return 1
    chosen = [r for r in rows if r.name in (args.only or [r.name]) and r.name not in args.skip]
    kind = "rehearsal" if args.rehearse else "gpu"
    try:
        run = _Run(
            folder=RunFolder(args.out.resolve(), kind),
            rehearsal=args.rehearse,
            preloaded=args.preload,
            deadline=time.monotonic() + 60 * args.minutes,
            environment=_environment(args),
        )
        with run.folder.held():
            return _carry_out(run, chosen, first, args.again)
    except RunFolderError as error:
        progress(f"error: {error}")
        return 1


def _carry_out(run: _Run, rows: Sequence[Row], first: Row, again: Sequence[str]) -> int:
    for name in (*again, first.name):
        run.folder.forget(name)
    if run.preloaded:
        sys.path.insert(0, str(ROOT))
        for name in _PRELOADED:
            importlib.import_module(name)
    signal.signal(signal.SIGTERM, _terminate)
    status = 0
    try:
        machine = run.row(first, "[0]")
        if machine["status"] != "done":
            progress(f"error: {machine['last_words'].strip()}")
            return 1
        for number, row in enumerate(rows, start=1):
            run.row(row, f"[{number}/{len(rows)}]")
    except _TimeOverError:
        progress("the time is over; the same command goes on where it stopped")
        status = 3
    except KeyboardInterrupt:
        progress("interrupted; the same command goes on where it stopped")
        status = 130
    records = [
        run.folder.ended(row.name) or {"row": row.name, "status": "not run"}
        for row in (first, *rows)
    ]
    text = table(records, rehearsal=run.rehearsal)
    progress(f"\n{text}")
    _keep(run.folder.path, records, text)
    if status:
        return status
    return int(any(record["status"] != "done" for record in records))


def _keep(folder: Path, records: Sequence[dict[str, Any]], text: str) -> None:
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "summary.md").write_text(text + "\n")


def _environment(args: argparse.Namespace) -> dict[str, str]:
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    commit = {} if args.commit is None else {"GLORA_SEARCH_COMMIT": args.commit}
    return {"PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1", **commit}


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="where results are kept, and a run goes on from")
    parser.add_argument("--list", action="store_true", help="tell the rows and their targets")
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help="these rows")
    for option, what in (("--skip", "not these rows"), ("--again", "run these rows once more")):
        parser.add_argument(option, nargs="+", choices=names, default=[], metavar="ROW", help=what)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin and leave nothing after these"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="on the CPU, with a tiny network: no number counts"
    )
    parser.add_argument(
        "--preload",
        action="store_true",
        help="import torch once and fork the rows: quicker, for rehearsals (CUDA does not fork)",
    )
    parser.add_argument("--commit", help="of a copy of the repository that has no .git")
    return parser


if __name__ == "__main__":
    sys.exit(main())
