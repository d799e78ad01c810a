"""The whole path of the ViT-B/16 example without Ray and Optuna, once, on pictures of noise.

    python tests/benchmarks/bench_whole_path.py --device cuda --folder DIR
    python tests/benchmarks/bench_whole_path.py --device cuda --folder DIR --training fair

Its stages and settings are those of glora_search/study/examples/vtab-vit-b16.toml: images in the
form of VTAB-1k are decoded, a supernet trains, evolution searches it in this process, the winner is
merged and exported, and timm alone loads the export, whose logits are compared with those of the
unmerged subnet. Weights and images are random, so no accuracy means anything. With `--training
published` a step takes one uniformly drawn path, as the published supernet does; `fair` is the
default of a study file.

The training goes on from its checkpoint in DIR, where images and export stay as well. Prints one
JSON line: the seconds of each stage, those of the training over all its pieces, the largest
difference of logits, and how bf16 ranks random subnets and the last ones of the search beside fp32.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from measuring import progress, report
from noise_task import write_noise_task
from rank_agreement import agreement, keys_of

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.study.outcomes import Outcome
from search_spaces import ParamLimits, SearchSpace, SubnetConfig, load_preset
from supernet import (
    Architecture,
    Checkpointing,
    Design,
    EpochEnd,
    Evaluation,
    Preprocessing,
    Recipe,
    Split,
    SubnetEvaluator,
    Supernet,
    evaluate_model,
    find_layers,
    train_supernet,
)
from supernet.data import VTABSource, load_search_splits, load_test_split
from supernet.export import largest_logit_difference, subnet_export, write_export
from supernet.fingerprints import backbone_fingerprint

EXAMPLE = Path(__file__).parents[2] / "glora_search/study/examples/vtab-vit-b16.toml"
DESIGNS = {"published": Design(), "fair": Design(paths="fair", paths_per_step=4)}
_PREPARED = ("crop_pct", "crop_mode", "mean", "std")
_TOLERANCE = 1e-3


def main() -> None:
    """Go all the way and print the figures."""
    study = tomllib.loads(EXAMPLE.read_text())
    args = _arguments(study)
    device = torch.device(args.device)
    seconds: dict[str, float] = {}
    with _timed(seconds, "noise"):
        source = VTABSource(args.folder / "data", study["data"]["task"])
        classes = source.label_space().num_classes
        write_noise_task(args.folder / "data", source.task, args.images, classes=classes)
    with _timed(seconds, "prepare"):
        architecture = Architecture(args.model, classes)
        backbone = architecture.build(drop_path=0.1)
        preprocessing = Preprocessing.from_model(
            backbone, **{key: study["data"][key] for key in _PREPARED}
        )
        train, val = load_search_splits(source, preprocessing)
        train, val = train.to(device), val.to(device)
        layers = find_layers(backbone, architecture=architecture)
        space = SearchSpace(layers, load_preset(study["space"]["preset"]).choices)
        fingerprint = backbone_fingerprint(backbone)
        supernet = Supernet(backbone, space).to(device)
    training = _train(args, supernet, train, {"backbone": fingerprint, "train": train.fingerprint})
    supernet.eval()
    with _timed(seconds, "search"):
        history = _search(args, supernet, val)
    winner = min(history, key=lambda outcome: (outcome.loss, outcome.candidate.place))
    subnet = winner.candidate.subnet
    with _timed(seconds, "export"):
        exported = args.folder / "export"
        shutil.rmtree(exported, ignore_errors=True)  # of an earlier piece
        write_export(
            exported,
            subnet_export(supernet, subnet),
            architecture=architecture,
            preprocessing=preprocessing,
            class_names=None,
            record={"val": {"loss": winner.loss, "top1": winner.top1}},
        )
    loaded = timm.create_model(f"local-dir:{exported}", pretrained=True).to(device).eval()
    difference = largest_logit_difference(supernet, loaded, subnet, val)
    # Without its adapter: what is equal because nothing has trained would prove nothing.
    plain = supernet.merge(space.min_subnet())
    moved = largest_logit_difference(supernet, plain, subnet, val)
    test = load_test_split(source, preprocessing).to(device)
    ranked = {
        "random": _random_subnets(space, args.ranked),
        "last_of_the_search": [o.candidate.subnet for o in history[-args.ranked :]],
    }
    figures: dict[str, Any] = {
        "model": args.model,
        "space": study["space"]["preset"],
        "images": dict(zip(("train", "val", "test"), args.images, strict=True)),
        "stages_s": {name: round(s, 2) for name, s in seconds.items()},
        "training": training,
        "search": {
            "candidates": len(history),
            "precision": args.precision,
            "first_generation_best_loss": min(o.loss for o in history[: args.population]),
            "best_loss": winner.loss,
            "n_params": winner.candidate.n_params,
        },
        "export": {
            "largest_logit_difference": difference,
            "logits_moved_by_the_adapter": moved,
            "test_loss": evaluate_model(loaded, test).loss,
        },
        "bf16_beside_fp32": {
            name: _ranked(supernet, val, subnets) for name, subnets in ranked.items()
        },
    }
    report("whole_path", figures, device=args.device)
    if not difference <= _TOLERANCE:
        raise SystemExit(f"the export's logits differ by {difference:g} from the subnet's")


def _train(
    args: argparse.Namespace, supernet: Supernet, train: Split, identity: dict[str, str]
) -> dict[str, Any]:
    """Train, or go on; the time that it took, over all pieces that left a checkpoint."""
    checkpoint = args.folder / "training.safetensors"
    clock = args.folder / "training-seconds.json"
    if checkpoint.exists() and not clock.exists():
        checkpoint.unlink()  # how long it took is not known
    before = json.loads(clock.read_text()) if checkpoint.exists() else {"seconds": 0.0, "pieces": 0}
    losses: list[float] = []
    begin = told = time.monotonic()

    def keep(_: Path) -> None:
        seconds = before["seconds"] + time.monotonic() - begin
        spent = clock.with_suffix(".tmp")
        spent.write_text(json.dumps({"seconds": seconds, "pieces": before["pieces"] + 1}))
        spent.replace(clock)

    def on_epoch(end: EpochEnd) -> None:
        nonlocal told
        losses.append(end.loss)
        if time.monotonic() - told >= 5 or end.epoch == end.epochs:
            told = time.monotonic()
            progress(f"training: epoch {end.epoch} of {end.epochs}, loss {end.loss:.4f}")

    recipe = Recipe(epochs=args.epochs, batch_size=args.batch)
    design = DESIGNS[args.training]
    keeping = Checkpointing(path=checkpoint, identity=identity, on_write=keep)
    train_supernet(
        supernet, train, recipe, seed=0, design=design, checkpointing=keeping, on_epoch=on_epoch
    )
    spent = json.loads(clock.read_text())
    return {
        "training": args.training,
        "epochs": args.epochs,
        "batch": args.batch,
        "precision": "bf16" if args.device.startswith("cuda") else "fp32",
        "minutes": round(spent["seconds"] / 60, 4),
        "pieces": spent["pieces"],
        "losses_of_this_piece": [round(losses[k], 4) for k in (0, -1)] if losses else [],
    }


def _search(args: argparse.Namespace, supernet: Supernet, val: Split) -> list[Outcome]:
    """Generation after generation, as `glora_search.stages.search_loop` does it."""
    half = args.population // 2
    settings = SearchSettings(
        population=args.population,
        generations=args.generations,
        parents=min(10, args.population),
        mutations=half,
        crossovers=args.population - half,
        limits=ParamLimits(0, args.max_params),
    )
    proposer = make_proposer(supernet.space, settings, 0)
    evaluator = SubnetEvaluator(supernet, val, precision=args.precision)
    history: list[Outcome] = []
    for generation in range(args.generations + 1):
        candidates = proposer.propose(generation, history)
        scores = _scores(evaluator, [c.subnet for c in candidates])
        history += [
            Outcome(candidate=c, loss=s.loss, top1=s.top1, eval_s=s.eval_s, worker="here")
            for c, s in zip(candidates, scores, strict=True)
        ]
        best = min(o.loss for o in history if o.loss is not None)
        progress(f"search: generation {generation} of {args.generations}, best loss {best:.4f}")
    return history


def _ranked(supernet: Supernet, val: Split, subnets: Sequence[SubnetConfig]) -> dict[str, Any]:
    progress(f"ranking {len(subnets)} subnets in fp32 and bf16")
    exact = _scores(SubnetEvaluator(supernet, val), subnets)
    found = _scores(SubnetEvaluator(supernet, val, precision="bf16"), subnets)
    return {
        fitness: agreement(keys_of(exact, fitness), keys_of(found, fitness))
        for fitness in ("loss", "top1")
    }


def _scores(evaluator: SubnetEvaluator, subnets: Sequence[SubnetConfig]) -> list[Evaluation]:
    found = dict(evaluator.evaluate_each(subnets))
    scores = []
    for position in range(len(subnets)):
        score = found[position]
        if isinstance(score, Exception):
            raise score
        scores.append(score)
    return scores


def _random_subnets(space: SearchSpace, n: int) -> list[SubnetConfig]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(n)]


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    progress(stage)
    begin = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - begin


def _arguments(study: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="kept, and gone on from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=study["backbone"]["model"])
    parser.add_argument("--training", choices=DESIGNS, default="published")
    parser.add_argument("--epochs", type=int, default=study["supernet"]["epochs"])
    parser.add_argument("--batch", type=int, default=Recipe().batch_size)
    parser.add_argument("--images", type=int, nargs=3, default=[800, 200, 200])
    parser.add_argument("--population", type=int, default=SearchSettings().population)
    parser.add_argument("--generations", type=int, default=SearchSettings().generations)
    parser.add_argument("--max-params", type=int, default=study["search"]["max_params"])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--ranked", type=int, default=200, help="subnets ranked in both")
    return parser.parse_args()


if __name__ == "__main__":
    main()
