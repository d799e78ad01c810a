"""Many tasks, one backbone: how long a switch takes, beside a forward, and how large the files are.

    python tests/benchmarks/bench_adapter_bank.py
    python tests/benchmarks/bench_adapter_bank.py --device cuda --rounds 50

Two random subnets of one supernet with random weights are exported, and added to a bank by their
directories. The floor is a forward of the plain backbone in float32. A switch goes from one adapter
to the other, with weights added up in float32, or in float64, which gives the exported model's
weights bit for bit (checked). The mixed batch is as large as the floor's; its images belong to the
two tasks in turns, so it is two forwards of half the batch and two switches, the one back included.

Prints one JSON line: seconds, ratios to the floor, and the bytes of the files.
"""

from __future__ import annotations

import argparse
import copy
import random
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from measuring import in_turns, progress, ratios, report, spread
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from search_spaces import ParamLimits, SearchSpace, load_preset
from supernet import AdapterBank, Architecture, Preprocessing, Supernet, find_layers
from supernet.backbones import input_size
from supernet.export import subnet_export, write_export
from supernet.fingerprints import backbone_fingerprint

_CLASSES = 100
_TASKS = ("first", "second")


def main() -> None:
    """Export, measure, and print the figures."""
    args = _arguments()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        progress("exporting two subnets")
        backbone, n_params = _export(args, Path(folder))
        backbone = backbone.to(device).eval()
        banks: dict[str, AdapterBank] = {}
        for name, dtype in {"float32": torch.float32, "float64": torch.float64}.items():
            banks[name] = AdapterBank(copy.deepcopy(backbone), dtype=dtype)
            for task in _TASKS:
                banks[name].add(task, Path(folder) / task)
        _check_equal(banks["float64"], Path(folder))
        images = torch.randn(args.batch, *input_size(backbone), device=device)
        mixed = [task for task, _ in zip(cycle(_TASKS), images, strict=False)]
        calls: dict[str, Callable[[], object]] = {
            "floor": _forward(backbone, images),
            **{f"switch_{name}": _switch(bank) for name, bank in banks.items()},
            "mixed_batch": lambda: banks["float32"].classify(images, mixed),
        }
        progress(f"{args.rounds} rounds of {', '.join(calls)}")
        wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
        seconds = in_turns(calls, rounds=args.rounds, wait=wait)
        figures: dict[str, Any] = {
            "model": args.model,
            "space": args.space,
            "batch": args.batch,
            "adapter_params": n_params,
            "seconds": {name: spread(times) for name, times in seconds.items()},
            "ratio_to_floor": ratios(seconds, "floor"),
            "bytes": {
                "backbone": _size(folder, "backbone.safetensors"),
                "merged_model": [_size(folder, task, "model.safetensors") for task in _TASKS],
                "adapter": [_size(folder, task, "adapter.safetensors") for task in _TASKS],
            },
        }
    report("adapter_bank", figures, device=args.device)


def _export(args: argparse.Namespace, folder: Path) -> tuple[nn.Module, list[int]]:
    """The backbone, and the scalars of each adapter; their files are in `folder`."""
    architecture = Architecture(args.model, _CLASSES)
    backbone = architecture.build()
    save_file(backbone.state_dict(), folder / "backbone.safetensors")
    record = {"fingerprints": {"backbone": backbone_fingerprint(backbone)}}
    space = SearchSpace(find_layers(backbone), load_preset(args.space).choices)
    supernet = Supernet(backbone, space)
    with torch.no_grad():
        for name, parameter in supernet.trainable_parameters():
            if not name.endswith("_up"):
                parameter.normal_(std=0.02)
    limits = ParamLimits(*(round(share * args.params) for share in (0.98, 1.02)))
    subnets = [space.sample(random.Random(seed), limits) for seed, _ in enumerate(_TASKS)]
    for task, subnet in zip(_TASKS, subnets, strict=True):
        write_export(
            folder / task,
            subnet_export(supernet, subnet),
            architecture=architecture,
            preprocessing=Preprocessing.from_model(backbone),
            class_names=None,
            record=record,
        )
    return supernet.detach(), [space.n_params(subnet) for subnet in subnets]


def _check_equal(bank: AdapterBank, folder: Path) -> None:
    """On the CPU bit for bit; a GPU adds up a product in an order of its own."""
    for task in _TASKS:
        bank.attach(task)
        state = bank.backbone.state_dict()
        for name, tensor in load_file(folder / task / "model.safetensors").items():
            found = state[name].cpu()
            if not torch.equal(found, tensor):
                if state[name].device.type == "cpu":
                    raise SystemExit(f"{name} of {task!r} is not that of the exported model")
                torch.testing.assert_close(found, tensor)


def _forward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    @torch.no_grad()
    def forward() -> Tensor:
        logits: Tensor = model(images)
        return logits

    return forward


def _switch(bank: AdapterBank) -> Callable[[], object]:
    def switch() -> None:
        bank.attach(_TASKS[bank.active == _TASKS[0]])

    return switch


def _size(*parts: str) -> int:
    return Path(*parts).stat().st_size


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--space", default="glora_r4", help="a preset")
    parser.add_argument("--params", type=int, default=500_000, help="of an adapter, about")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main()
