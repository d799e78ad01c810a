"""How many candidates a second the driver can handle, when two Ray workers evaluate nothing.

    python tests/benchmarks/bench_driver.py [--url postgresql://...] [--populations 50 200]

A whole search: evolution over 240 genes, real Ray workers whose scorer answers at once, real
storage. The rivals are the same search with a record that keeps nothing, the evaluator alone, and
single calls to actors that stay up, two in flight an actor. Prints one JSON line: candidates a
second, ratios to the single calls, and where the driver's time goes.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from measuring import in_turns, progress, ratios, report, spread
from scratch_database import scratch_database

from glora_search.cluster.connection import ray
from glora_search.evaluating import Evaluator
from glora_search.evaluating.ray_actors import RayWorkers, WorkerPool
from glora_search.proposing import Proposer, SearchSettings, make_proposer
from glora_search.recording import Database
from glora_search.stages.search_loop import LoopSettings, run_search
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace, SubnetConfig, load_preset

SPACE = SearchSpace(
    [
        LayerSpec(f"blocks.{block}.{name}", 768, 768, bias=True)
        for block in range(12)
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ],
    load_preset("mixed").choices,
)


@dataclass(frozen=True)
class Figures:
    """What a scorer says of a subnet."""

    loss: float
    top1: float = 0.5
    n_images: int = 1
    eval_s: float = 0.0


@dataclass(frozen=True)
class Nothing:
    """A package that is its own scorer, and answers at once."""

    space: str = SPACE.to_json()

    def unpack(self) -> Nothing:
        """Itself."""
        return self

    def evaluate_each(self, subnets: Sequence[SubnetConfig]) -> Iterator[tuple[int, Figures]]:
        """Losses that only depend on their order."""
        for position in range(len(subnets)):
            yield position, Figures(1.0 + position / 1000)


class Keeping:
    """Passes on to a proposer, an evaluator or a record, and adds up the seconds spent there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, its seconds added to those of `what`."""

        def timed(*args: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*args)
            finally:
                spent = time.perf_counter() - begin
                self.seconds[what] = self.seconds.get(what, 0.0) + spent

        return timed

    def proposer(self, proposer: Proposer) -> Any:
        """A proposer whose seconds are kept."""
        return _With(propose=self.timed("proposing", proposer.propose))

    def evaluator(self, evaluator: Evaluator) -> Any:
        """An evaluator; only the waiting for its outcomes is kept, not what the loop does then."""

        def evaluate(candidates: Sequence[Candidate]) -> Iterator[Outcome]:
            outcomes = evaluator.evaluate(candidates)
            following = self.timed("evaluating", lambda: next(outcomes, None))
            while (outcome := following()) is not None:
                yield outcome

        return _With(evaluate=evaluate)

    def record(self, record: Any) -> Any:
        """A record whose flushes are kept."""
        return _With(history=record.history, flush=self.timed("writing", record.flush))


class _With:
    def __init__(self, **methods: Callable[..., Any]) -> None:
        vars(self).update(methods)


class _KeepsNothing:
    def history(self) -> list[Outcome]:
        return []

    def flush(self, outcomes: Sequence[Outcome]) -> int:
        return len(outcomes)


class _NoOp:
    def evaluate(self, candidate: Candidate) -> tuple[float, float]:
        return 1.0, 0.5


def single_calls(actors: Sequence[Any], candidates: Sequence[Candidate]) -> None:
    """One call a candidate, two in flight an actor."""
    waiting = iter(candidates)
    in_flight: dict[Any, Any] = {}
    for actor in [*actors, *actors]:
        in_flight[actor.evaluate.remote(next(waiting))] = actor
    while in_flight:
        (reference,), _ = ray.wait(list(in_flight), num_returns=1)
        ray.get(reference)
        actor = in_flight.pop(reference)
        if (candidate := next(waiting, None)) is not None:
            in_flight[actor.evaluate.remote(candidate)] = actor


def measure(
    evaluator: Evaluator,
    actors: Sequence[Any],
    url: str,
    loop: LoopSettings,
    *,
    n: int,
    population: int,
    rounds: int,
) -> dict[str, Any]:
    """The figures for one size of population."""
    generations = n // population - 1
    settings = SearchSettings(
        population=population,
        generations=generations,
        mutations=population // 2,
        crossovers=population - population // 2,
    )
    made: list[Outcome] = []
    shares: dict[str, list[float]] = {}

    def search(record: Any) -> list[Outcome]:
        keeping = Keeping()
        begin = time.perf_counter()
        outcomes = run_search(
            keeping.record(record),
            keeping.proposer(make_proposer(SPACE, settings, 0)),
            keeping.evaluator(evaluator),
            settings,
            loop,
        )
        spent = time.perf_counter() - begin
        if len(outcomes) != n:
            raise RuntimeError(f"{len(outcomes)} outcomes of {n}")
        if not isinstance(record, _KeepsNothing):
            for what, seconds in keeping.seconds.items():
                shares.setdefault(what, []).append(seconds / spent)
        return outcomes

    def stored() -> None:
        with Database(url) as database:
            record = database.create_study(
                f"bench-{uuid.uuid4().hex}", space=SPACE, objectives=BY_LOSS, attributes={}
            )
            with record.hold():
                search(record)

    made = search(_KeepsNothing())
    candidates = [outcome.candidate for outcome in made]

    def evaluate() -> None:
        for first in range(0, n, population):
            for _ in evaluator.evaluate(candidates[first : first + population]):
                pass

    seconds = in_turns(
        {
            "single_calls": lambda: single_calls(actors, candidates),
            "search": stored,
            "search_without_storage": lambda: search(_KeepsNothing()),
            "evaluator_alone": evaluate,
        },
        rounds=rounds,
    )
    faster = ratios({k: [1 / s for s in v] for k, v in seconds.items()}, to="single_calls")
    return {
        "population": population,
        "candidates": n,
        "a_second": {k: spread([n / s for s in v]) for k, v in seconds.items()},
        "ratio_to_single_calls": faster,
        # Of the search's time; writing goes on in a thread beside the rest.
        "share": {k: spread(v[1:]) for k, v in shares.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="database or server; by default a temporary SQLite file")
    parser.add_argument("--candidates", type=int, default=3000, help="of each search")
    parser.add_argument("--populations", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--flush-every", type=int, default=LoopSettings().flush_every, help="outcomes a transaction"
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    progress("starting Ray")
    workers = RayWorkers(None, WorkerPool(workers=arguments.workers))
    evaluator = workers.evaluator(Nothing())
    no_op = ray.remote(num_cpus=0)(_NoOp)
    actors = [no_op.remote() for _ in range(arguments.workers)]
    figures = []
    with scratch_database(arguments.url) as url:
        for population in arguments.populations:
            progress(f"{arguments.candidates} candidates in generations of {population}")
            figures.append(
                measure(
                    evaluator,
                    actors,
                    url,
                    LoopSettings(flush_every=arguments.flush_every),
                    n=arguments.candidates // population * population,
                    population=population,
                    rounds=arguments.rounds,
                )
            )
    evaluator.close()
    workers.close()
    settings = {k: getattr(arguments, k) for k in ("workers", "flush_every")}
    report("driver", {"genes": len(SPACE.genes), **settings, "by": figures})


if __name__ == "__main__":
    main()
