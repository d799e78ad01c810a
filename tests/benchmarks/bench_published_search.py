r"""A whole search, population after population: this project's loop beside the published one.

    python tests/benchmarks/bench_published_search.py
    python tests/benchmarks/bench_published_search.py --device cuda --precision bf16 \
        --images 200 --population 50 --generations 20

Ours proposes each generation from the outcomes before it and evaluates it as one batch in this
process, without storage, which is measured apart and overlaps. The published loop decodes the
images from disk for each candidate and computes with unmerged layers in fp32; it is measured on a
few candidates and extrapolated. So is ours where fewer than the 1,050 candidates of the published
search are evaluated. The parameter limit does not bind, so nothing is rejected. Needs neither Ray
nor Optuna.

Prints one JSON line: seconds of the search, with `published` (as in the paper) and with `local`
operators, split into proposing and evaluating, and how many times as long the published loop takes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from evaluation_case import Case, DenseLoop
from measuring import progress, report, spread

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.study.outcomes import Outcome
from glora_search.study.search_names import OperatorSet
from supernet import SubnetEvaluator

_PUBLISHED = 50 * 21


def main() -> None:
    """Run all of them and print the figures."""
    args = _arguments()
    device = torch.device(args.device)
    case = Case.make(model=args.model, space=args.space, n_images=args.images, device=device)
    evaluator = SubnetEvaluator(case.supernet, case.split, precision=args.precision)
    rng = random.Random(0)
    for _, _found in evaluator.evaluate_each([case.supernet.space.sample(rng) for _ in range(2)]):
        pass  # warm-up
    n = args.population * (args.generations + 1)
    key = "search_s" if n == _PUBLISHED else f"search_of_{_PUBLISHED}_s_extrapolated_from_{n}"
    figures: dict[str, Any] = {
        "model": args.model,
        "space": args.space,
        "images": args.images,
        "precision": args.precision,
        "candidates": n,
    }
    searches = [_Search(case, evaluator, name, args) for name in ("published", "local")]
    dense_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        dense = DenseLoop(case, Path(folder), args.workers)
        dense(case.supernet.space.sample(rng))  # warm-up
        for generation in range(args.generations + 1):
            progress(f"generation {generation} of {args.generations}")
            for search in searches:  # in turns, so that a machine that slows down does so for all
                search.run(generation)
            while len(dense_s) < args.dense * (generation + 1) / (args.generations + 1):
                begin = time.perf_counter()
                dense(case.supernet.space.sample(rng))
                dense_s.append(time.perf_counter() - begin)
    seconds: dict[str, float] = {}
    for search in searches:
        whole_s = search.proposing_s + search.evaluating_s
        seconds[search.operators] = whole_s * _PUBLISHED / n
        figures[f"{search.operators}_operators"] = {
            key: round(seconds[search.operators], 3),
            "candidate_s": float(f"{whole_s / n:.4g}"),
            "proposing_share": round(search.proposing_s / whole_s, 4),
        }
    candidate_s = spread(dense_s)
    whole = candidate_s["median"] * _PUBLISHED
    figures["dense_loop"] = {
        f"search_of_{_PUBLISHED}_s_extrapolated_from_{args.dense}": round(whole, 3),
        "candidate_s": candidate_s,
    }
    figures["times_as_fast_as_dense_extrapolated"] = {
        name: round(whole / ours, 1) for name, ours in seconds.items()
    }
    report("published_search", figures, device=args.device)


class _Search:
    """A search, generation by generation, and the seconds of its two parts."""

    def __init__(
        self,
        case: Case,
        evaluator: SubnetEvaluator,
        operators: OperatorSet,
        args: argparse.Namespace,
    ) -> None:
        half = args.population // 2
        settings = SearchSettings(
            operators=operators,
            population=args.population,
            parents=min(10, args.population),
            mutations=half,
            crossovers=args.population - half,
            generations=args.generations,
        )
        self.operators = operators
        self.proposing_s = self.evaluating_s = 0.0
        self._proposer = make_proposer(case.supernet.space, settings, 0)
        self._evaluator = evaluator
        self._history: list[Outcome] = []

    def run(self, generation: int) -> None:
        """Propose a generation and evaluate it."""
        begin = time.perf_counter()
        candidates = self._proposer.propose(generation, self._history)
        proposed = time.perf_counter()
        for position, found in self._evaluator.evaluate_each([c.subnet for c in candidates]):
            if isinstance(found, Exception):
                raise found
            self._history.append(
                Outcome(
                    candidate=candidates[position],
                    loss=found.loss,
                    top1=found.top1,
                    eval_s=found.eval_s,
                    worker="bench",
                )
            )
        self.proposing_s += proposed - begin
        self.evaluating_s += time.perf_counter() - proposed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--space", default="glora_r8", help="a preset")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument("--dense", type=int, default=12, help="candidates of the published loop")
    parser.add_argument("--workers", type=int, default=2, help="of its DataLoader")
    return parser.parse_args()


if __name__ == "__main__":
    main()
