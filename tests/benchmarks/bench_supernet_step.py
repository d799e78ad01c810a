"""One training step of a supernet: this project's layers, the rivals' and the floor, in one run.

    python tests/benchmarks/bench_supernet_step.py
    python tests/benchmarks/bench_supernet_step.py --device cuda --batch 64 --precision bf16

The floor is a step of the frozen backbone with its head: gradients flow through all activations,
and no layer has anything to train. In each round every rival takes one step on the same batch,
with the same uniformly drawn subnet, so a ratio compares neighbours in time.

Prints one JSON line: seconds a step, ratios to the floor, and the peak of memory that a step
allocates beyond weights and optimizer state. On CUDA with --precision bf16 the dense rival runs
in fp32 as well, as its published code does. --recipe adds how long the published recipe takes, 500
epochs of 800 images, extrapolated from the median step.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
from collections.abc import Callable
from typing import Any

import timm
import torch
from measuring import in_turns, progress, ratios, report, spread
from memory import peak_bytes
from rivals import DenseLayer, PEFTLayer, check_same_logits, use_rival
from torch import nn

from search_spaces import SearchSpace, SubnetConfig, load_preset
from supernet import Precision, Recipe, Supernet, find_layers
from supernet.training import make_optimizer, train_step

_CLASSES, _EPOCHS, _IMAGES = 100, 500, 800


class _Rival:
    """A network with its optimizer, that can take one step."""

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self.model, self.precision = model.train(), precision
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(trained, Recipe())

    def step(self, batch: tuple[torch.Tensor, torch.Tensor], subnet: SubnetConfig) -> None:
        if isinstance(self.model, Supernet):
            self.model.set_active_subnet(subnet)
        train_step(self.model, self.optimizer, *batch, precision=self.precision)


def main() -> None:
    """Run all of them and print the figures."""
    args = _arguments()
    device = torch.device(args.device)
    torch.manual_seed(0)
    backbone = timm.create_model(args.model, num_classes=_CLASSES).to(device)
    size = backbone.pretrained_cfg["input_size"]
    batch = (
        torch.randn(args.batch, *size, device=device),
        torch.randint(_CLASSES, (args.batch,), device=device),
    )
    space = SearchSpace(find_layers(backbone), load_preset(args.space).choices)
    rivals = _rivals(args, backbone, space, batch[0])
    subnets = _subnets(space, args.rounds + 1)

    calls = {name: _walk(rival, batch, subnets) for name, rival in rivals.items()}
    progress(f"{args.rounds} rounds of {', '.join(rivals)}")
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    seconds = in_turns(calls, rounds=args.rounds, wait=wait)
    figures: dict[str, Any] = {
        "model": args.model,
        "space": args.space,
        "batch": args.batch,
        "precision": args.precision,
        "step_s": {name: spread(times) for name, times in seconds.items()},
        "ratio_to_floor": ratios(seconds, "floor"),
        "ratio_to_floor_of_sums": {
            name: round(sum(times) / sum(seconds["floor"]), 3) for name, times in seconds.items()
        },
    }
    progress("peak memory of a step")
    peaks = {
        name: spread([_peak(rival, batch, subnet) / 2**20 for subnet in subnets[: args.memory]])
        for name, rival in rivals.items()
    }
    figures["peak_mib"] = peaks
    figures["peak_ratio_to_dense"] = round(peaks["ours"]["median"] / peaks["dense"]["median"], 3)
    if args.recipe:
        steps = _EPOCHS * math.ceil(_IMAGES / args.batch)
        figures["recipe_minutes_extrapolated"] = {
            name: round(steps * step["median"] / 60, 2) for name, step in figures["step_s"].items()
        }
    report("supernet_step", figures, device=args.device)


def _walk(
    rival: _Rival, batch: tuple[torch.Tensor, torch.Tensor], subnets: list[SubnetConfig]
) -> Callable[[], None]:
    """A call that takes one step, with the next subnet each time: the same for every rival."""
    mine = iter(subnets)
    return lambda: rival.step(batch, next(mine))


def _peak(rival: _Rival, batch: tuple[torch.Tensor, torch.Tensor], subnet: SubnetConfig) -> int:
    rival.optimizer.zero_grad(set_to_none=True)  # gradients of the step before are not counted
    return peak_bytes(lambda: rival.step(batch, subnet), batch[0].device)


def _rivals(
    args: argparse.Namespace, backbone: nn.Module, space: SearchSpace, images: torch.Tensor
) -> dict[str, _Rival]:
    def supernet(layer: type[DenseLayer] | None) -> Supernet:
        made = Supernet(copy.deepcopy(backbone), space).to(images.device)
        if layer is not None:
            made.set_active_subnet(space.sample(random.Random(0)))
            check_same_logits(made, images[:2], layer)
            use_rival(made, layer)
        return made

    floor = copy.deepcopy(backbone).requires_grad_(False)
    floor.get_classifier().requires_grad_(True)
    floor.pos_embed.requires_grad_(True)  # from the first block on, activations have gradients
    rivals = {
        "floor": _Rival(floor, args.precision),
        "ours": _Rival(supernet(None), args.precision),
        "dense": _Rival(supernet(DenseLayer), args.precision),
        "peft": _Rival(supernet(PEFTLayer), args.precision),
        "full": _Rival(copy.deepcopy(backbone), args.precision),
    }
    if args.precision != "fp32":
        rivals["dense_fp32"] = _Rival(supernet(DenseLayer), "fp32")
    return {name: rivals[name] for name in rivals if not args.only or name in args.only}


def _subnets(space: SearchSpace, count: int) -> list[SubnetConfig]:
    rng = random.Random(1)
    return [space.sample(rng) for _ in range(count)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_base_patch16_224", help="a timm ViT")
    parser.add_argument("--space", default="glora_r4", help="a preset of search_spaces")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--rounds", type=int, default=8, help="steps of each that are timed")
    parser.add_argument("--memory", type=int, default=3, help="subnets whose peak is measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--only", nargs="+", help="run fewer rivals; floor, ours, dense at least")
    parser.add_argument("--recipe", action="store_true", help="extrapolate the published recipe")
    return parser.parse_args()


if __name__ == "__main__":
    main()
