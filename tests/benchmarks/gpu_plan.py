"""What there is to measure on a GPU: the rows, what each may take, and what it is to reach."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Final, Literal

from gpu_pieces import GRACE_S
from gpu_reading import Reads

ROOT: Final = Path(__file__).parents[2]
PIECE_S: Final = 480.0
"""Seconds that a piece may take at most, its end included."""

LIMIT_S: Final = PIECE_S - GRACE_S - 5.0
"""Seconds after which a piece of a row is asked to end."""

NETWORK: Final = ("torch", "torchvision", "timm", "numpy", "safetensors", "PIL")
"""What every row imports: the needs of `supernet`."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A number that is to be reached.

    Args:
        what: In a few words.
        bound: The number.
        sense: On which side of it a figure must be.
        value: The figure, from those of the row; a KeyError says that the row has none.
    """

    what: str
    bound: float
    sense: Literal["at most", "at least"]
    value: Callable[[Mapping[str, Any]], float]

    def judged(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """What is said of it beside the figures of a row."""
        try:
            measured = self.value(figures)
        except KeyError:
            return {"target": self.what, self.sense: self.bound, "measured": None, "reached": False}
        reached = measured <= self.bound if self.sense == "at most" else measured >= self.bound
        return {
            "target": self.what,
            self.sense: self.bound,
            "measured": float(f"{measured:.4g}"),
            "reached": reached,
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One command, and how to run it in earnest and as a rehearsal.

    Args:
        name: In files and on the command line.
        what: In a few words.
        script: A file in this folder, or `-m` for a module.
        args: In either case. `{work}` becomes a folder that the row keeps from piece to piece.
        on_gpu: Further ones in earnest.
        rehearsed: Further ones on the CPU, with a tiny network.
        limit_s: Seconds after which a piece is asked to end.
        pieces: How many it may take; one of more than one goes on where the last one stopped. One
            more may be lost to a run that is killed.
        needs: Packages that it imports beside NETWORK, as they are imported.
        tool: A program that it starts.
        reads: Where its figures stand: one JSON line, or pytest's junit file in `{work}`.
        targets: What it is to reach.
    """

    name: str
    what: str
    script: str
    args: tuple[str, ...] = ()
    on_gpu: tuple[str, ...] = ()
    rehearsed: tuple[str, ...] = ()
    limit_s: float = LIMIT_S
    pieces: int = 1
    needs: tuple[str, ...] = ()
    tool: str | None = None
    reads: Reads = "json"
    targets: tuple[Target, ...] = ()

    def command(self, *, rehearsal: bool) -> list[str]:
        """What is kept with the figures: without a folder of this machine, so that a run can go on
        on another one.
        """
        return [self.script, *self.args, *(self.rehearsed if rehearsal else self.on_gpu)]

    def words(self, work: Path, *, rehearsal: bool) -> list[str]:
        """The command as Python gets it.

        Args:
            work: The folder of the row.
            rehearsal: As in `command`.
        """
        script, *words = self.command(rehearsal=rehearsal)
        return [
            script if script == "-m" else str(Path(__file__).parent / script),
            *(word.replace("{work}", str(work)) for word in words),
        ]


def _figure(*path: str) -> Callable[[Mapping[str, Any]], float]:
    """The figure at `path`."""
    return lambda figures: float(reduce(operator.getitem, path, figures))


def _quotient(over: Sequence[str], under: Sequence[str]) -> Callable[[Mapping[str, Any]], float]:
    return lambda figures: _figure(*over)(figures) / _figure(*under)(figures)


def _search_s(operators: str) -> Callable[[Mapping[str, Any]], float]:
    """Seconds of the published search; extrapolated where fewer candidates were evaluated."""
    return lambda figures: _CANDIDATES * _figure(operators, "candidate_s")(figures)


_CANDIDATES: Final = 50 * 21
_B16: Final = ("--model", "vit_base_patch16_224")
_L16: Final = ("--model", "vit_large_patch16_224")
_TINY: Final = ("--model", "test_vit")
_CUDA: Final = ("--device", "cuda")

_FLOOR: Final = Target(
    what="step, ratio to the floor",
    bound=1.25,
    sense="at most",
    value=_figure("ratio_to_floor", "ours", "median"),
)
_MEMORY: Final = Target(
    what="peak memory, share of the published layer's",
    bound=0.7,
    sense="at most",
    value=_figure("peak_ratio_to_dense"),
)
_DENSE: Final = Target(
    what="step, times as fast as the published layer in fp32",
    bound=5.0,
    sense="at least",
    value=_quotient(("step_s", "dense_fp32", "median"), ("step_s", "ours", "median")),
)


def _step(name: str, model: tuple[str, ...], precision: str, rounds: str) -> Row:
    in_bf16 = precision == "bf16"
    return Row(
        name=name,
        what=f"supernet step, {model[1]}, {precision}, batch 64",
        script="bench_supernet_step.py",
        args=("--precision", precision, "--recipe"),
        on_gpu=(*_CUDA, *model, "--batch", "64", "--rounds", rounds),
        rehearsed=(
            *(*_TINY, "--batch", "2", "--rounds", "1", "--memory", "1"),
            *("--only", "floor", "ours", "dense", *(["dense_fp32"] if in_bf16 else [])),
        ),
        targets=(_FLOOR, _MEMORY, *([_DENSE] if in_bf16 else [])),
    )


def _evaluation(name: str, precision: str) -> Row:
    return Row(
        name=name,
        what=f"evaluating a candidate, ViT-B/16, 200 images, {precision}",
        script="bench_evaluation.py",
        args=("--precision", precision),
        on_gpu=(*_CUDA, *_B16, "--images", "200", "--candidates", "50", "--rounds", "5"),
        rehearsed=(*_TINY, "--images", "2", "--candidates", "2", "--rounds", "1"),
        targets=tuple(
            Target(
                what=f"a candidate of {which}, ratio to one forward",
                bound=1.05,
                sense="at most",
                value=_figure("ratio_to_floor", key, "median"),
            )
            for which, key in (
                ("random subnets", "random_subnets"),
                ("a local generation", "local_generation"),
            )
        ),
    )


def _sharing(name: str, words: str, *more: str, tool: str | None = None) -> Row:
    return Row(
        name=name,
        what=f"one, two and four workers on one GPU, {words}",
        script="bench_sharing.py",
        on_gpu=(*_CUDA, *_B16, "--precision", "bf16", "--images", "200", "--candidates", "96"),
        rehearsed=(
            *(*_TINY, "--images", "2", "--candidates", "4", "--rounds", "1"),
            *("--workers", "1", "2"),
        ),
        args=more,
        tool=tool,
    )


def _whole_path(name: str, what: str, *more: str, targets: tuple[Target, ...] = ()) -> Row:
    return Row(
        name=name,
        what=what,
        script="bench_whole_path.py",
        args=("--folder", "{work}", *more),
        on_gpu=_CUDA,
        rehearsed=(
            *(*_TINY, "--max-params", "20_000", "--images", "8", "4", "4", "--epochs", "2"),
            *("--population", "4", "--generations", "1", "--ranked", "4", "--batch", "4"),
        ),
        pieces=4,
        targets=(
            *targets,
            Target(
                what="logits of the export in timm, largest difference",
                bound=1e-3,
                sense="at most",
                value=_figure("export", "largest_logit_difference"),
            ),
        ),
    )


def _gpu_tests() -> Row:
    files = sorted((ROOT / "tests" / "supernet").glob("test_*.py"))
    marked = [str(path.relative_to(ROOT)) for path in files if "mark.gpu" in path.read_text()]
    return Row(
        name="gpu-tests",
        what="the tests that are marked gpu",
        script="-m",
        args=("pytest", *marked, "-m", "gpu", "-q", "-p", "no:cacheprovider"),
        on_gpu=("--junitxml", "{work}/tests.xml"),
        rehearsed=("--junitxml", "{work}/tests.xml"),
        needs=("pytest", "hypothesis", "sklearn"),
        reads="junit",
    )


MACHINE: Final = Row(
    name="machine",
    what="the device, its driver and the versions",
    script="gpu_machine.py",
    on_gpu=_CUDA,
)
"""What a run looks at first, each time: without it nothing else runs."""

ROWS: Final = (
    _gpu_tests(),
    _step("step-b16-bf16", _B16, "bf16", "20"),
    _step("step-b16-fp32", _B16, "fp32", "20"),
    _step("step-l16-bf16", _L16, "bf16", "8"),
    _step("step-l16-fp32", _L16, "fp32", "8"),
    _evaluation("evaluation-bf16", "bf16"),
    _evaluation("evaluation-fp32", "fp32"),
    Row(
        name="published-search",
        what="1,050 candidates of ViT-B/16 on 200 images, bf16, beside the published loop",
        script="bench_published_search.py",
        args=("--precision", "bf16"),
        on_gpu=(
            *(*_CUDA, *_B16, "--images", "200", "--population", "50", "--generations", "20"),
            *("--dense", "6"),
        ),
        rehearsed=(
            *(*_TINY, "--images", "2", "--population", "4", "--generations", "1"),
            *("--dense", "1"),
        ),
        targets=(
            Target(
                what="seconds of a search with local operators",
                bound=20.0,
                sense="at most",
                value=_search_s("local_operators"),
            ),
            Target(
                what="seconds of a search with published operators",
                bound=20.0,
                sense="at most",
                value=_search_s("published_operators"),
            ),
            Target(
                what="times as fast as the published loop, published operators",
                bound=100.0,
                sense="at least",
                value=_figure("times_as_fast_as_dense_extrapolated", "published"),
            ),
        ),
    ),
    Row(
        name="adapter-bank",
        what="switching between two adapters of ViT-B/16",
        script="bench_adapter_bank.py",
        on_gpu=(*_CUDA, *_B16, "--rounds", "50"),
        rehearsed=(*_TINY, "--params", "30_000", "--batch", "2", "--rounds", "1"),
    ),
    _sharing("sharing", "in turns"),
    _sharing("sharing-mps", "under MPS", "--mps", tool="nvidia-cuda-mps-control"),
    Row(
        name="precision",
        what="bf16 and TF32 ranking against fp32, the demo's supernet",
        script="bench_precision.py",
        on_gpu=(*_CUDA, "--epochs", "250"),
        rehearsed=("--epochs", "1", "--pretraining", "1", "--population", "12"),
        needs=("scipy", "sklearn"),
    ),
    _whole_path(
        "whole-path",
        "the stages of the ViT-B/16 example without Ray, trained as published; bf16 ranking",
        "--training",
        "published",
        targets=(
            Target(
                what="minutes of the published recipe, 500 epochs of 800 images",
                bound=4.0,
                sense="at most",
                value=_figure("training", "minutes"),
            ),
        ),
    ),
    _whole_path(
        "whole-path-fair",
        "the same, trained as a study file has it by default: fair, four paths a step",
        *("--training", "fair"),
    ),
)
"""In the order in which they run."""
