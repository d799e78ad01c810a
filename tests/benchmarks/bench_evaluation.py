r"""Evaluating a candidate: this project's evaluator, the published way and the floor, in one run.

    python tests/benchmarks/bench_evaluation.py
    python tests/benchmarks/bench_evaluation.py --device cuda --precision bf16 \
        --images 200 --candidates 50 --rounds 5

The floor is one forward of a plain network in the same precision, its weights in the type of that
precision, over normalised images that lie on the device: no merge, no loss, nothing read back.
Ours is a batch of subnets, once of uniformly drawn ones, which share nothing but the patch
embedding, and once of a generation by the local operators. Dense is the published way: the images
are decoded from disk by a DataLoader for each candidate, and go through the unmerged layers in
fp32. Needs neither Ray nor Optuna.

Prints one JSON line: seconds a candidate, ratios to the floor, and the share of block evaluations
that a generation of 50 saves, by operators, over 20 generations of a search with a made-up fitness.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from evaluation_case import Case, DenseLoop
from measuring import in_turns, progress, ratios, report, spread

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.study.outcomes import Candidate, Outcome
from glora_search.study.search_names import OperatorSet
from search_spaces import SearchSpace, SubnetConfig
from supernet import SubnetEvaluator
from supernet.chain import BlockChain
from supernet.evaluation import autocast, autocast_dtype
from supernet.sharing import shared_blocks, walk

_ROOM = 10**6


def main() -> None:
    """Run all of them and print the figures."""
    args = _arguments()
    device = torch.device(args.device)
    case = Case.make(model=args.model, space=args.space, n_images=args.images, device=device)
    space = case.supernet.space
    progress("proposing generations")
    local = [c.subnet for c in _generations(space, "local", 3, args.candidates)[-1]]
    rng = random.Random(0)
    evaluator = SubnetEvaluator(case.supernet, case.split, precision=args.precision)
    floor = _floor(case, args)
    with tempfile.TemporaryDirectory() as folder:
        dense = DenseLoop(case, Path(folder), args.workers)
        n = args.candidates
        calls: dict[str, Callable[[], object]] = {
            "floor": floor,
            "random_subnets": lambda: _all(evaluator, [space.sample(rng) for _ in range(n)]),
            "local_generation": lambda: _all(evaluator, local),
            "dense_from_disk": lambda: dense(space.sample(rng)),
        }
        progress(f"{args.rounds} rounds of {', '.join(calls)}")
        wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
        seconds = in_turns(calls, rounds=args.rounds, wait=wait)
    per_call = {"floor": args.forwards, "random_subnets": n, "local_generation": n}
    seconds = {k: [s / per_call.get(k, 1) for s in times] for k, times in seconds.items()}
    chain = BlockChain.find(case.supernet.plain(), case.supernet.layers)
    figures: dict[str, Any] = {
        "model": args.model,
        "space": args.space,
        "images": args.images,
        "precision": args.precision,
        "candidates_a_batch": n,
        "candidate_s": {name: spread(times) for name, times in seconds.items()},
        "ratio_to_floor": ratios(seconds, "floor"),
    }
    if chain is not None:
        figures["blocks_saved_in_this_local_generation"] = _share_saved(chain, [local])
        figures["blocks_saved_in_generations_of_50"] = {
            operators: _share_saved(
                chain, [[c.subnet for c in g] for g in _generations(space, operators, 20, 50)[1:]]
            )
            for operators in ("published", "local")
        }
    report("evaluation", figures, device=args.device)


def _floor(case: Case, args: argparse.Namespace) -> Callable[[], object]:
    model = case.supernet.plain(dtype=autocast_dtype(case.device, args.precision))
    batches = [images for images, _ in case.split.batches(256)]

    @torch.inference_mode()
    def forwards() -> None:
        with autocast(case.device, args.precision):
            for _ in range(args.forwards):
                for images in batches:
                    model(images)

    return forwards


def _all(evaluator: SubnetEvaluator, subnets: Sequence[SubnetConfig]) -> None:
    for _, found in evaluator.evaluate_each(subnets):
        if isinstance(found, Exception):
            raise found


def _generations(
    space: SearchSpace, operators: OperatorSet, n: int, population: int
) -> list[list[Candidate]]:
    """Generations 0 to n of an evolution whose loss is a sum of random terms, one a token."""
    half = population // 2
    settings = SearchSettings(
        operators=operators, population=population, mutations=half, crossovers=population - half
    )
    proposer = make_proposer(space, settings, 0)
    terms: dict[tuple[str, str], float] = {}
    rng = random.Random(0)
    history: list[Outcome] = []
    generations = []
    for generation in range(n + 1):
        generations.append(proposer.propose(generation, history))
        for candidate in generations[-1]:
            loss = 0.0
            for gene in candidate.subnet.to_params().items():
                loss += terms.setdefault(gene, rng.random())
            history.append(Outcome(candidate=candidate, loss=loss, top1=0.5, eval_s=0.0, worker=""))
    return generations


def _share_saved(chain: BlockChain, generations: Sequence[Sequence[SubnetConfig]]) -> float:
    saved = sum(shared_blocks(walk([chain.path(s) for s in g], _ROOM)) for g in generations)
    return round(saved / (chain.n_blocks * sum(map(len, generations))), 4)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--space", default="glora_r8", help="a preset")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=4, help="of a batch")
    parser.add_argument("--forwards", type=int, default=2, help="of one measurement of the floor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the rival's DataLoader")
    return parser.parse_args()


if __name__ == "__main__":
    main()
