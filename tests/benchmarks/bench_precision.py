"""How a population ranks in bf16 (and TF32, on CUDA) beside float32, on a trained supernet.

    python tests/benchmarks/bench_precision.py
    python tests/benchmarks/bench_precision.py --device cuda --epochs 250

The supernet is the demo's: a small vision transformer pretrained on the digits 0-4, adapted to 5-9.
Two populations are scored on its 200 val images: uniformly drawn subnets, and local mutants of the
best of these, which is what a search has to tell apart near its end. Needs neither Ray nor Optuna.

Prints one JSON line. For each population, precision and fitness: Kendall's tau, the share of pairs
that change places (a pair that is tied in either precision does not), the overlap of the best ten,
the rank in float32 of the other precision's winner (1 is the best), and the finalists that had to
be scored again for the true winner to be among them. Top-1 ties are broken by loss, as in a search.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from measuring import progress, report
from rank_agreement import Key, agreement, keys_of, ranks_of
from scipy.stats import kendalltau

from glora_search.proposing.operators import Parent, make_operators
from glora_search.proposing.settings import SearchSettings
from search_spaces import SearchSpace, SubnetConfig, load_preset
from supernet import (
    Architecture,
    Evaluation,
    Preprocessing,
    Recipe,
    SubnetEvaluator,
    Supernet,
    find_layers,
    train_network,
    train_supernet,
)
from supernet.data import DigitsSource, load_search_splits

_ARGS: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "embed_dim": 48,
    "depth": 6,
    "num_heads": 3,
}


def main() -> None:
    """Train, score and compare."""
    args = _arguments()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # a network so small is no faster with more
    supernet, val = _trained(args, device)
    rng = random.Random(0)
    randoms = [supernet.space.sample(rng) for _ in range(args.population)]
    figures: dict[str, Any] = {"epochs": args.epochs, "population": args.population}
    exact = _scores(SubnetEvaluator(supernet, val), randoms)
    good = randoms[min(range(len(randoms)), key=lambda k: exact[k].loss)]
    mutants = _mutants(supernet.space, good, args.population, rng)
    for name, subnets in (("random", randoms), ("local_mutants", mutants)):
        progress(f"{len(subnets)} subnets: {name}")
        exact = _scores(SubnetEvaluator(supernet, val), subnets)
        others = {"bf16": _scores(SubnetEvaluator(supernet, val, precision="bf16"), subnets)}
        if device.type == "cuda":
            with _tf32():
                others["tf32"] = _scores(SubnetEvaluator(supernet, val), subnets)
        figures[name] = {
            "fp32_loss_from_to": [round(f(e.loss for e in exact), 4) for f in (min, max)],
            **{
                f"{precision}_{fitness}": _compared(
                    keys_of(exact, fitness), keys_of(found, fitness)
                )
                for precision, found in others.items()
                for fitness in ("loss", "top1")
            },
        }
    report("precision", figures, device=args.device)


def _trained(args: argparse.Namespace, device: torch.device) -> tuple[Supernet, Any]:
    """The demo's supernet and its val split, on `device`."""
    architecture = Architecture("vit_tiny_patch16_224", 5, _ARGS)
    backbone = architecture.build(seed=0)
    preprocessing = Preprocessing.from_model(backbone)
    before = DigitsSource(classes=(0, 1, 2, 3, 4), n_train=None, n_val=5)
    progress("pretraining")
    recipe = Recipe(epochs=args.pretraining, lr=1e-3, weight_decay=0.05, warmup_epochs=3)
    backbone = backbone.to(device)
    train, _ = load_search_splits(before, preprocessing)
    train_network(backbone, train.to(device), recipe, seed=0)
    layers = find_layers(backbone, architecture=architecture)
    supernet = Supernet(backbone, SearchSpace(layers, load_preset("digits").choices))
    train, val = load_search_splits(DigitsSource(n_train=100, n_val=200), preprocessing)
    progress("training the supernet")
    recipe = Recipe(epochs=args.epochs, batch_size=32, lr=5e-3)
    train_supernet(supernet.to(device), train.to(device), recipe, seed=0)
    return supernet.eval(), val.to(device)


def _mutants(
    space: SearchSpace, good: SubnetConfig, n: int, rng: random.Random
) -> list[SubnetConfig]:
    """`n` different subnets that are one to three redrawn genes away from `good`."""
    operators = make_operators(space.genes, SearchSettings(operators="local"))
    parent = Parent.of(space.genes, space.encode(good))
    found: dict[tuple[str, ...], None] = {}
    while len(found) < n:
        genome = operators.mutate(parent, rng)
        if genome is not None:
            found[genome] = None
    return [space.decode(genome) for genome in found]


def _scores(evaluator: SubnetEvaluator, subnets: Sequence[SubnetConfig]) -> list[Evaluation]:
    found = dict(evaluator.evaluate_each(subnets))
    scores = []
    for position in range(len(subnets)):
        score = found[position]
        if isinstance(score, Exception):
            raise score
        scores.append(score)
    return scores


def _compared(exact: Sequence[Key], found: Sequence[Key]) -> dict[str, Any]:
    tau = kendalltau(ranks_of(exact), ranks_of(found)).statistic
    return {"kendall_tau": round(float(tau), 4), **agreement(exact, found)}


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=60, help="of the supernet")
    parser.add_argument("--pretraining", type=int, default=40, help="epochs of the backbone")
    parser.add_argument("--population", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
