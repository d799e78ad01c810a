"""Proposing a generation from a long history, without Ray, Optuna or a database.

    python tests/benchmarks/bench_proposing.py [--history 10000]

There is no rival in the same run: Optuna's samplers propose one trial at a time from a study.
"""

from __future__ import annotations

import argparse
import random
from functools import partial

from measuring import in_turns, report, spread

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, ParamLimits, SearchSpace, load_preset

_NAMES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_SPACE = SearchSpace(
    [LayerSpec(f"blocks.{k}.{name}", 768, 768, bias=True) for k in range(12) for name in _NAMES],
    load_preset("mixed").choices,
)
_POPULATION = 50


def main() -> None:
    """Measure both operator sets, with and without a limit, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--history", type=int, default=10_000, help="candidates proposed from")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    history = _history(options.history)
    generation = 1 + history[-1].candidate.generation
    tight = sorted(outcome.candidate.n_params for outcome in history)[len(history) // 4]
    proposers = {
        f"{operators}{', max_params at a quarter' if limit else ''}": make_proposer(
            _SPACE,
            SearchSettings(
                population=_POPULATION,
                operators=operators,
                limits=ParamLimits(max_params=limit),
            ),
            seed=0,
        )
        for operators in ("local", "published")
        for limit in (None, tight)
    }
    seconds = in_turns(
        {name: partial(p.propose, generation, history) for name, p in proposers.items()},
        rounds=options.rounds,
    )
    figures = {name: spread([1e3 * s for s in times]) for name, times in seconds.items()}
    report(
        "proposing",
        {
            "genes": len(_SPACE.genes),
            "history": len(history),
            "population": _POPULATION,
            "generation_ms": figures,
        },
    )


def _history(n: int) -> list[Outcome]:
    """Outcomes as a database gives them: digests were looked at when they were read."""
    rng = random.Random(0)
    outcomes = []
    for place in range(n):
        subnet = _SPACE.sample(rng)
        assert subnet.digest
        candidate = Candidate(
            generation=place // _POPULATION,
            index=place % _POPULATION,
            operator="random",
            parents=(),
            subnet=subnet,
            n_params=_SPACE.n_params(subnet),
        )
        outcomes.append(
            Outcome(
                candidate=candidate, loss=rng.random(), top1=rng.random(), eval_s=0.1, worker="a:1"
            )
        )
    return outcomes


if __name__ == "__main__":
    main()
