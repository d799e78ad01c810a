"""How much slower a search is beside a server: with a page open, and with 200 readers.

    python tests/benchmarks/bench_readers.py [--rounds 8] [--candidates 10000] [--evaluations 1000]
        [--readers 200] [--eval-ms 4] [--url postgresql://...]

This process drives a search that goes on with a recorded study of --candidates: evolution over 240
genes, the loop, batches written in the background; an evaluation is always the same products of
matrices, --eval-ms of processor time as measured at the start. In every round it evaluates as many
candidates without a server, beside a server whose page Chromium shows, and beside one whose events
--readers follow from a process of their own; once more without a server tells how far equal
searches are apart. Which comes first changes. Servers are fresh each time. Browser and readers use
the same processors as the search, which they would not in earnest, so the seconds of each are told
apart. Prints one JSON line: time and processor time of an evaluation, both as ratios to the same
round without a server with a 95% interval, and processor seconds of server, readers and browser.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from bench_page import browsing
from measuring import progress, report, spread
from playwright.sync_api import Browser
from scratch_database import scratch_database
from served_study import POPULATION, SPACE, STUDY, Server, cpu_s, our_server, write_study
from threadpoolctl import threadpool_limits

from glora_search.bench.statistics import interval
from glora_search.proposing import SearchSettings, make_proposer
from glora_search.recording import Database
from glora_search.stages.search_loop import LoopSettings, run_search
from glora_search.study.outcomes import Candidate, Outcome

_SETUPS = ("alone", "alone again", "page", "readers")
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
        self.began: tuple[float, float] | None = None

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        """As `Evaluator.evaluate`; notes when it was first asked."""
        self.began = self.began or _now()
        for candidate in candidates:
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


@dataclass(frozen=True)
class _Cost:
    """What a search took, seconds of an evaluation, and what ran beside it, seconds in all."""

    wall_s: float
    cpu_s: float
    beside: dict[str, float]


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=10_000, help="recorded beforehand")
    parser.add_argument("--evaluations", type=int, default=1000, help="of each search")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--eval-ms", type=float, default=4.0)
    parser.add_argument("--setups", nargs="+", choices=_SETUPS[1:], default=_SETUPS[1:])
    parser.add_argument("--url", help="database or server; by default a temporary SQLite file")
    options = parser.parse_args()
    if options.candidates % POPULATION or options.evaluations % POPULATION:
        parser.error(f"--candidates and --evaluations come in generations of {POPULATION}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    setups = ("alone", *options.setups)
    costs: dict[str, list[_Cost]] = {setup: [] for setup in setups}
    loads, exact = [], 0
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(scratch_database(options.url))
        browser = stack.enter_context(browsing()) if "page" in setups else None
        write_study(url, options.candidates)
        progress("the study is written")
        working = Working(options.eval_ms / 1e3)
        recorded = options.candidates
        for round_ in range(options.rounds):
            for k in range(len(setups)):
                setup = setups[(round_ + k) % len(setups)]
                case = _Case(url, folder, recorded, options.evaluations, working)
                if setup.startswith("alone"):
                    cost = case.search()
                elif setup == "page":
                    assert browser is not None
                    cost = case.beside_a_page(browser)
                else:
                    cost, n_exact = case.beside_readers(options.readers)
                    exact += n_exact
                recorded += options.evaluations
                costs[setup].append(cost)
                loads.append(os.getloadavg()[0])
                progress(f"round {round_}, {setup}: {cost}")
    report(
        "readers",
        {
            "candidates": options.candidates,
            "evaluations": options.evaluations,
            "rounds": options.rounds,
            "genes": len(SPACE.genes),
            "products_an_evaluation": working.products,
            "database": url.partition(":")[0],
            "load_average": spread(loads, digits=3),
            "by": {setup: _summary(found, costs["alone"]) for setup, found in costs.items()},
            "readers": options.readers,
            "readers_that_got_each_outcome_once": exact,
            "readers_in_all": options.readers * len(costs.get("readers", ())),
        },
    )


@dataclass(frozen=True)
class _Case:
    """One search beside something.

    Args:
        url: The database.
        folder: For the server.
        recorded: Outcomes that are there.
        n: Evaluations of the search.
        working: Evaluates.
    """

    url: str
    folder: Path
    recorded: int
    n: int
    working: Working

    @property
    def until(self) -> int:
        """Outcomes that are there at the end."""
        return self.recorded + self.n

    def search(
        self, before: Callable[[], dict[str, Callable[[], float]]] = dict, after: Any = None
    ) -> _Cost:
        """Search on; `before` gives what tells the processor seconds of what runs beside it."""
        settings = SearchSettings(
            population=POPULATION,
            generations=self.until // POPULATION - 1,
            mutations=POPULATION // 2,
            crossovers=POPULATION - POPULATION // 2,
        )
        with Database(self.url) as database:
            record = database.open_study(STUDY)
            with record.hold():
                clocks = before()
                started = {name: clock() for name, clock in clocks.items()}
                self.working.began = None
                proposer = make_proposer(SPACE, settings, 0)
                outcomes = run_search(record, proposer, self.working, settings, LoopSettings())
                assert self.working.began is not None
                wall_s, spent_s = (
                    end - begin for end, begin in zip(_now(), self.working.began, strict=True)
                )
                beside = {name: clock() - started[name] for name, clock in clocks.items()}
                if after is not None:
                    after()
        if len(outcomes) != self.until:
            raise RuntimeError(f"{len(outcomes)} outcomes of {self.until}")
        return _Cost(wall_s / self.n, spent_s / self.n, beside)

    def beside_a_page(self, browser: Browser) -> _Cost:
        """Search while Chromium shows the study, until it shows the last outcome."""
        with our_server(self.url, self.folder / "runs") as server:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()

            def opened() -> dict[str, Callable[[], float]]:
                page.goto(f"{server.address}/studies/{STUDY}")
                page.wait_for_selector("#history svg", state="attached", timeout=120_000)
                page.wait_for_timeout(_SETTLED_MS)
                return {"server_cpu_s": lambda: server.cpu_s, "browser_cpu_s": _children(server)}

            def shown() -> None:
                text = f"{self.until:,} of"
                page.wait_for_selector(f"#state .of:has-text('{text}')", timeout=120_000)

            try:
                return self.search(opened, shown)
            finally:
                context.close()

    def beside_readers(self, readers: int) -> tuple[_Cost, int]:
        """Search while readers follow, until they have read the last outcome; how many of them
        got each outcome once.
        """
        numbers = [str(number) for number in (readers, self.recorded, self.until)]
        told: dict[str, Any] = {}
        with our_server(self.url, self.folder / "runs") as server:
            program = [sys.executable, str(Path(__file__).parent / "following.py")]
            with _process([*program, server.address, STUDY, *numbers]) as following:
                assert following.stdout is not None
                lines = following.stdout

                def connected() -> dict[str, Callable[[], float]]:
                    progress(lines.readline().strip())
                    return {"server_cpu_s": lambda: server.cpu_s}

                cost = self.search(connected, lambda: told.update(json.loads(lines.readline())))
        beside = {**cost.beside, "readers_cpu_s": told["cpu_s"]}
        return _Cost(cost.wall_s, cost.cpu_s, beside), told["got_each_outcome_once"]


def _children(server: Server) -> Callable[[], float]:
    """A clock of the processes that this one started, without the server: those of the browser."""
    found = [p for p in psutil.Process().children(recursive=True) if p.pid != server.process.pid]
    return lambda: sum(cpu_s(p) for p in found if p.is_running())


@contextmanager
def _process(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _now() -> tuple[float, float]:
    """Time, and processor time of this process."""
    return time.perf_counter(), time.process_time()


def _summary(found: list[_Cost], alone: list[_Cost]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "wall_ms_an_evaluation": spread([1e3 * cost.wall_s for cost in found]),
        "cpu_ms_an_evaluation": spread([1e3 * cost.cpu_s for cost in found]),
        **{
            name: spread([cost.beside[name] for cost in found], digits=3)
            for name in found[0].beside
        },
    }
    if found is not alone:
        pairs = list(zip(found, alone, strict=True))
        summary["wall_ratio"] = _ratio([a.wall_s / b.wall_s for a, b in pairs])
        summary["cpu_ratio"] = _ratio([a.cpu_s / b.cpu_s for a, b in pairs])
    return summary


def _ratio(ratios: list[float]) -> dict[str, Any]:
    """The mean over the rounds with its 95% interval, and each of them."""
    found = interval({("", number): ratio for number, ratio in enumerate(ratios)})
    told: dict[str, Any] = {"mean": round(found.mean, 4), "rounds": [round(r, 3) for r in ratios]}
    if len(ratios) > 1:
        told |= {"low": round(found.low, 4), "high": round(found.high, 4)}
    return told


if __name__ == "__main__":
    main()
