"""How much slower a search is beside a server: with a page open, and with 200 readers.

    python tests/benchmarks/bench_readers.py [--pairs 40] [--slice 500] [--candidates 10000]
        [--readers 200] [--readers-nice 19] [--eval-ms 4] [--busy 1] [--url postgresql://...]

This process drives a search that goes on with a recorded study of --candidates: evolution over 240
genes, the loop, batches written in the background; an evaluation is always the same products of
matrices, --eval-ms of processor time as measured at the start. Each search is cut into slices of
--slice evaluations. In every other one all that runs beside it is stopped, by a signal, so that
each slice beside something has a neighbour in time without it: beside a server whose page Chromium
shows; beside one whose events --readers follow from a process of their own; and beside a process
that sleeps, which tells how far equal slices are apart. What a server, a page and readers miss
while they are stopped they make up for afterwards, so the ratios are at their upper end. Browser
and readers use the same processors as the search, which they would not in earnest, so the seconds
of each are told apart. With --readers-nice 19 readers run where search and server leave a processor
free, which is as near to machines of their own as one machine comes. --busy processes compute
without end all the time, in the place of workers of a search that leaves no processor free. Prints
one JSON line: time and processor time of an evaluation, as ratios of neighbours with a 95%
interval, and processor seconds of server, readers and browser.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from bench_page import browsing
from measuring import progress, report, spread
from playwright.sync_api import Browser
from scratch_database import scratch_database
from served_study import POPULATION, SPACE, STUDY, cpu_s, our_server, write_study
from threadpoolctl import threadpool_limits

from glora_search.bench.statistics import interval
from glora_search.proposing import SearchSettings, make_proposer
from glora_search.recording import Database
from glora_search.stages.search_loop import LoopSettings, run_search
from glora_search.study.outcomes import Candidate, Outcome

_SETUPS = ("nothing", "page", "readers")
_SETTLED_MS = 4000.0  # until an open page has asked for itself once more, and drawn that


class Working:
    """An evaluator that multiplies matrices in this process.

    Args:
        eval_s: Processor time of an evaluation, as measured now.
    """

    def __init__(self, eval_s: float) -> None:
        self._matrix = np.random.default_rng(0).standard_normal((128, 128), dtype=np.float32)
        self.products = 1000
        self._multiply()
        begin = time.thread_time()
        self._multiply()
        self.products = max(1, round(self.products * eval_s / (time.thread_time() - begin)))
        self.before_each: Callable[[], None] = lambda: None

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        """As `Evaluator.evaluate`."""
        for candidate in candidates:
            self.before_each()
            begin = time.perf_counter()
            self._multiply()
            eval_s = time.perf_counter() - begin
            loss = int(candidate.subnet.digest[:6], 16) / 16**6
            yield Outcome(candidate=candidate, loss=loss, top1=0.5, eval_s=eval_s, worker="here:1")

    def _multiply(self) -> None:
        for _ in range(self.products):
            self._matrix @ self._matrix

    def close(self) -> None:
        """Nothing to give back."""


@dataclass
class _Beside:
    """What runs beside a search: processes by what they are."""

    processes: dict[str, list[psutil.Process]]

    def stop(self) -> None:
        """Stop all of them, but no server while it keeps others from writing to a database file."""
        for process in self._all():
            process.suspend()
        for server in self.processes.get("server", ()):
            while _holds_a_lock(server.pid):
                server.resume()
                time.sleep(1e-3)
                server.suspend()

    def go_on(self) -> None:
        """Let all of them go on."""
        for process in self._all():
            process.resume()

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each kind has spent."""
        return {
            f"{kind}_cpu_s": sum(cpu_s(process) for process in found if process.is_running())
            for kind, found in self.processes.items()
        }

    def _all(self) -> list[psutil.Process]:
        found = [process for processes in self.processes.values() for process in processes]
        return [process for process in found if process.is_running()]


@dataclass
class _Slices:
    """Cuts a search into slices: beside what goes on, beside what is stopped, the other way round.

    Args:
        beside: Goes on and is stopped.
        size: Evaluations of a slice.
        n: Slices.
    """

    beside: _Beside
    size: int
    n: int
    _evaluated: int = 0
    _marks: list[tuple[float, float]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    def before_each(self) -> None:
        """Call before each evaluation."""
        if self._evaluated % self.size == 0 and len(self._marks) < self.n:
            if not self._marks:
                self.spent = self.beside.cpu_s()
            self._turn(len(self._marks))
            self._marks.append((time.perf_counter(), time.process_time()))
        self._evaluated += 1

    def end(self) -> None:
        """Call after the last evaluation; what runs beside goes on."""
        self._marks.append((time.perf_counter(), time.process_time()))
        self.beside.go_on()
        now = self.beside.cpu_s()
        self.spent = {name: now[name] - before for name, before in self.spent.items()}

    def pairs(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """Of neighbouring slices wall and processor time of an evaluation, s: beside, without."""
        marks = np.asarray(self._marks)
        costs = [tuple(map(float, cost)) for cost in np.diff(marks, axis=0) / self.size]
        found = []
        for k in range(0, self.n, 2):
            first, second = costs[k : k + 2]
            found.append((first, second) if _goes_on(k) else (second, first))
        return found  # type: ignore[return-value]

    def _turn(self, number: int) -> None:
        if _goes_on(number):
            self.beside.go_on()
        else:
            self.beside.stop()


def _goes_on(number: int) -> bool:
    """Of slices 0, 1, 2, 3 and so on: on, off, off, on."""
    return number % 4 in (0, 3)


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=40, help="of slices, in each search")
    parser.add_argument("--slice", type=int, default=500, help="evaluations")
    parser.add_argument("--candidates", type=int, default=10_000, help="recorded beforehand")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--readers-nice", type=int, default=0, help="niceness of their process")
    parser.add_argument("--eval-ms", type=float, default=4.0)
    parser.add_argument("--busy", type=int, default=0, help="processes that only compute")
    parser.add_argument("--setups", nargs="+", choices=_SETUPS, default=_SETUPS)
    parser.add_argument("--url", help="database or server; by default a temporary SQLite file")
    options = parser.parse_args()
    if options.candidates % POPULATION or options.slice % POPULATION:
        parser.error(f"--candidates and --slice come in generations of {POPULATION}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    by: dict[str, Any] = {}
    exact = 0
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(scratch_database(options.url))
        browser = stack.enter_context(browsing()) if "page" in options.setups else None
        write_study(url, options.candidates)
        progress("the study is written")
        working = Working(options.eval_ms / 1e3)
        recorded = options.candidates
        for _ in range(options.busy):
            stack.enter_context(_process([sys.executable, "-c", "while True: pass"]))
        for setup in options.setups:
            case = _Case(url, folder, recorded, options.pairs, options.slice, working)
            if setup == "nothing":
                slices = case.beside_a_sleeper()
            elif setup == "page":
                assert browser is not None
                slices = case.beside_a_page(browser)
            else:
                slices, exact = case.beside_readers(options.readers, options.readers_nice)
            recorded = case.until
            by[setup] = _summary(slices) | {"load_average": round(os.getloadavg()[0], 1)}
            progress(f"{setup}: {by[setup]}")
    report(
        "readers",
        {
            "candidates": options.candidates,
            "evaluations_of_a_slice": options.slice,
            "pairs": options.pairs,
            "genes": len(SPACE.genes),
            "products_an_evaluation": working.products,
            "database": url.partition(":")[0],
            "busy_processes_beside": options.busy,
            "readers_nice": options.readers_nice,
            "by": by,
            "readers_that_got_each_outcome_once": exact,
            "readers_in_all": options.readers if "readers" in by else 0,
        },
    )


@dataclass(frozen=True)
class _Case:
    """One search beside something.

    Args:
        url: The database.
        folder: For the server.
        recorded: Outcomes that are there.
        pairs: Of slices.
        slice: Evaluations.
        working: Evaluates.
    """

    url: str
    folder: Path
    recorded: int
    pairs: int
    slice: int
    working: Working

    @property
    def until(self) -> int:
        """Outcomes that are there at the end."""
        return self.recorded + 2 * self.pairs * self.slice

    def search(
        self, beside: Callable[[], _Beside], after: Callable[[], object] = lambda: None
    ) -> _Slices:
        """Search on, in slices.

        Args:
            beside: Once the study is held, starts what is to run beside.
            after: Before the study is given back.
        """
        settings = SearchSettings(
            population=POPULATION,
            generations=self.until // POPULATION - 1,
            mutations=POPULATION // 2,
            crossovers=POPULATION - POPULATION // 2,
        )
        with Database(self.url) as database:
            record = database.open_study(STUDY)
            with record.hold():
                slices = _Slices(beside(), self.slice, 2 * self.pairs)
                self.working.before_each = slices.before_each
                proposer = make_proposer(SPACE, settings, 0)
                outcomes = run_search(record, proposer, self.working, settings, LoopSettings())
                slices.end()
                after()
        if len(outcomes) != self.until:
            raise RuntimeError(f"{len(outcomes)} outcomes of {self.until}")
        return slices

    def beside_a_sleeper(self) -> _Slices:
        """Search beside a process that does nothing."""
        with _process(["sleep", "infinity"]) as sleeper:
            return self.search(lambda: _Beside({"sleeper": [psutil.Process(sleeper.pid)]}))

    def beside_a_page(self, browser: Browser) -> _Slices:
        """Search while Chromium shows the study, until it shows the last outcome."""
        with our_server(self.url, self.folder / "runs") as server:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()

            def opened() -> _Beside:
                page.goto(f"{server.address}/studies/{STUDY}")
                page.wait_for_selector("#history svg", state="attached", timeout=120_000)
                page.wait_for_timeout(_SETTLED_MS)
                started = psutil.Process().children(recursive=True)
                browsers = [p for p in started if "chrom" in p.name()]
                return _Beside({"server": [server.process], "browser": browsers})

            def shown() -> None:
                text = f"{self.until:,} of"
                page.wait_for_selector(f"#state .of:has-text('{text}')", timeout=120_000)

            try:
                return self.search(opened, shown)
            finally:
                context.close()

    def beside_readers(self, readers: int, nice: int) -> tuple[_Slices, int]:
        """Search while readers follow, until they have read the last outcome; how many of them
        got each outcome once.
        """
        numbers = [str(number) for number in (readers, self.recorded, self.until)]
        told: dict[str, Any] = {}
        with our_server(self.url, self.folder / "runs") as server:
            program = [sys.executable, str(Path(__file__).parent / "following.py")]
            words = [*program, server.address, STUDY, *numbers]
            with _process(words, stdout=subprocess.PIPE) as following:
                assert following.stdout is not None
                psutil.Process(following.pid).nice(nice)
                lines = following.stdout

                def connected() -> _Beside:
                    progress(lines.readline().strip())
                    them = [psutil.Process(following.pid)]
                    return _Beside({"server": [server.process], "readers": them})

                slices = self.search(connected, lambda: told.update(json.loads(lines.readline())))
        return slices, told["got_each_outcome_once"]


@contextmanager
def _process(words: list[str], stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=stdout, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait()


def _holds_a_lock(pid: int) -> bool:
    """Whether a process has locked any file, as SQLite does while it reads."""
    return any(line.split()[4] == str(pid) for line in Path("/proc/locks").read_text().splitlines())


def _summary(slices: _Slices) -> dict[str, Any]:
    pairs = slices.pairs()
    summary: dict[str, Any] = {
        "wall_ms_an_evaluation": spread([1e3 * beside[0] for beside, _ in pairs]),
        "search_s": round(sum(a[0] + b[0] for a, b in pairs) * slices.size, 1),
        **{name: round(seconds, 2) for name, seconds in slices.spent.items()},
    }
    for k, name in enumerate(("wall_ratio", "cpu_ratio")):
        summary[name] = _ratio([beside[k] / without[k] for beside, without in pairs])
    return summary


def _ratio(ratios: list[float]) -> dict[str, float]:
    """The mean over the pairs with its 95% interval, and the median."""
    found = interval({("", k): ratio for k, ratio in enumerate(ratios)})
    told = {"mean": round(found.mean, 4), "median": round(float(np.median(ratios)), 4)}
    if len(ratios) > 1:
        told |= {"low": round(found.low, 4), "high": round(found.high, 4)}
    return told


if __name__ == "__main__":
    main()
