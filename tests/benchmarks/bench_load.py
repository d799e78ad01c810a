"""What share of their time workers are busy, and where the driver saturates.

    python tests/benchmarks/bench_load.py [--workers 50 100 200 400 800] [--eval-ms 50]
        [--modes generational steady-state] [--layers attn.qkv] [--url postgresql://...]

The driver is real: evolution over 240 genes (60 with one layer a block), the loop, batches written
in the background. The workers are simulated: a candidate is given to whoever is idle, and its
outcome is there after a drawn time around --eval-ms (uniform, plus and minus --spread). Handing
over costs nothing, so what is measured is proposing and recording; messages of Ray come on top
(bench_driver.py). A worker's idle time is all the driver's doing, or, in a generation, that of the
slowest worker. With --record none nothing is written, which tells what storage costs. Prints one
JSON line: for every case the share of time that workers were busy until there was nothing more to
give them, candidates a second, the share of its time that the driver had nothing to do, and the
processor time that its thread spent on a candidate (the writer's is not in it).
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import optuna
from measuring import progress, report
from scratch_database import scratch_database

from glora_search.proposing import SearchSettings, SteadyStateProposer, make_proposer
from glora_search.recording import Database
from glora_search.stages.search_loop import LoopSettings, run_search, run_steady_search
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace, load_preset

_NAMES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_MODES = ("generational", "steady-state")


class SimulatedWorkers:
    """An evaluator whose workers do nothing but take their time.

    Args:
        workers: How many.
        eval_s: The mean time of an evaluation.
        spread: Times are uniform in eval_s * (1 - spread) to eval_s * (1 + spread).
    """

    def __init__(self, workers: int, eval_s: float, spread: float) -> None:
        self.worked_s = self.waited_s = self.slept_s = 0.0
        self.began = self.ended = 0.0
        self._workers = workers
        self._idle: deque[float] = deque()  # since when
        self._eval_s, self._spread = eval_s, spread
        self._rng = random.Random(0)
        self._busy: list[tuple[float, int, Candidate, float]] = []  # until when, tie-break, ...
        self._n = 0

    def evaluate(self, candidates: Iterable[Candidate]) -> Iterator[Outcome]:
        """As `Evaluator.evaluate`."""
        if not self.began:
            self.began = time.perf_counter()
            self._idle.extend([self.began] * self._workers)
        waiting, is_batch = iter(candidates), isinstance(candidates, Sequence)
        arrived: list[Outcome] = []
        while True:
            self._give(waiting)
            for outcome in arrived:
                yield outcome
                if not is_batch:
                    self._give(waiting)  # a child of what has just arrived
            if not self._busy:
                return
            early_s = self._busy[0][0] - time.perf_counter()
            if early_s > 0:
                time.sleep(early_s)
                self.slept_s += early_s
            arrived = list(self._arrived())

    def _give(self, waiting: Iterator[Candidate]) -> None:
        """A candidate for everyone who is idle, each from the moment when it is there."""
        while self._idle:
            candidate = next(waiting, None)
            if candidate is None:
                return
            eval_s = self._eval_s * (1 + self._spread * self._rng.uniform(-1, 1))
            self._n, now = self._n + 1, time.perf_counter()
            self.waited_s += now - self._idle.popleft()
            heapq.heappush(self._busy, (now + eval_s, self._n, candidate, eval_s))

    def _arrived(self) -> Iterator[Outcome]:
        self.ended = time.perf_counter()
        while self._busy and self._busy[0][0] <= self.ended:
            until, n, candidate, eval_s = heapq.heappop(self._busy)
            self._idle.append(until)
            self.worked_s += eval_s
            yield Outcome(
                candidate=candidate,
                loss=_loss(candidate),
                top1=0.5,
                eval_s=eval_s,
                worker=f"simulated:{n % 8}",
            )

    def close(self) -> None:
        """Nothing to give back."""


@cache
def _effect(layer: str, tokens: tuple[str, ...]) -> float:
    return random.Random(f"{layer} {tokens}").random()


def _loss(candidate: Candidate) -> float:
    """Every layer's choice adds its own: children are like their parents, as those of a real search
    are, so parents change all the while.
    """
    layers = candidate.subnet.layers.items()
    return sum([_effect(name, config.tokens) for name, config in layers])


class _KeepsNothing:
    def history(self) -> list[Outcome]:
        return []

    def flush(self, outcomes: Sequence[Outcome]) -> int:
        return len(outcomes)


def _space(names: Sequence[str]) -> SearchSpace:
    """That of the layers so called in the twelve blocks of a ViT-B; five genes a layer."""
    layers = [
        LayerSpec(f"blocks.{k}.{name}", 768, 768, bias=True) for k in range(12) for name in names
    ]
    return SearchSpace(layers, load_preset("mixed").choices)


def measure(
    record: Any,
    space: SearchSpace,
    mode: str,
    loop: LoopSettings,
    options: argparse.Namespace,
    *,
    workers: int,
) -> dict[str, Any]:
    """The figures of one search."""
    eval_s = options.eval_ms / 1e3
    population = workers * options.waves
    n = max(2 * population, int(options.seconds * workers / eval_s))
    settings = SearchSettings(
        mode=mode,
        population=population,
        generations=max(1, round(min(n, options.candidates) / population)) - 1,
        mutations=population // 2,
        crossovers=population - population // 2,
    )
    evaluator = SimulatedWorkers(workers, eval_s, options.spread)
    begin, cpu = time.perf_counter(), time.thread_time()
    if mode == "steady-state":
        steady = SteadyStateProposer(space, settings, 0)
        outcomes = run_steady_search(record, steady, evaluator, loop)
    else:
        outcomes = run_search(record, make_proposer(space, settings, 0), evaluator, settings, loop)
    whole_s, cpu_s = time.perf_counter() - begin, time.thread_time() - cpu
    if len({o.candidate.place for o in outcomes}) != settings.n_candidates:
        raise RuntimeError(f"{len(outcomes)} outcomes of {settings.n_candidates}")
    span_s = evaluator.ended - evaluator.began
    return {
        "mode": mode,
        "workers": workers,
        "eval_ms": options.eval_ms,
        "candidates": len(outcomes),
        "busy": round(evaluator.worked_s / (evaluator.worked_s + evaluator.waited_s), 3),
        "a_second": round(len(outcomes) / span_s),
        "offered_a_second": round(workers / eval_s),
        "driver_idle": round(evaluator.slept_s / span_s, 3),
        "driver_cpu_ms_a_candidate": round(1e3 * cpu_s / len(outcomes), 3),
        "still_writing_s": round(whole_s - (evaluator.ended - begin), 3),
    }


@contextmanager
def _record(url: str | None, space: SearchSpace) -> Iterator[Any]:
    if url is None:
        yield _KeepsNothing()
        return
    with Database(url) as database:
        name = f"bench-{uuid.uuid4().hex}"
        record = database.create_study(name, space=space, objectives=BY_LOSS, attributes={})
        with record.hold():
            yield record


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="database or server; by default a temporary SQLite file")
    parser.add_argument("--record", choices=("database", "none"), default="database")
    parser.add_argument("--modes", nargs="+", choices=_MODES, default=list(_MODES))
    parser.add_argument("--workers", type=int, nargs="+", default=[50, 100, 200, 400, 800])
    parser.add_argument("--layers", nargs="+", choices=_NAMES, default=_NAMES, help="of a block")
    parser.add_argument("--eval-ms", type=float, default=50.0, help="mean of an evaluation")
    parser.add_argument("--spread", type=float, default=0.2, help="of evaluations, a fraction")
    parser.add_argument(
        "--waves", type=int, default=1, help="candidates a worker in each generation"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="that workers need, if busy")
    parser.add_argument("--candidates", type=int, default=8000, help="at most, of each search")
    parser.add_argument("--flush-every", type=int, default=LoopSettings().flush_every)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loop = LoopSettings(flush_every=options.flush_every)
    cases, space = [], _space(options.layers)
    with scratch_database(options.url) as url:
        target = url if options.record == "database" else None
        for workers, mode in [(w, m) for w in options.workers for m in options.modes]:
            with _record(target, space) as record:
                cases.append(measure(record, space, mode, loop, options, workers=workers))
            progress(str(cases[-1]))
    kind = "none" if target is None else url.partition(":")[0]
    settings = {k: getattr(options, k) for k in ("eval_ms", "spread", "waves", "flush_every")}
    report("load", {"genes": len(space.genes), "database": kind, **settings, "by": cases})


if __name__ == "__main__":
    main()
