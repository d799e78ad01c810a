"""Several workers on one device: how many candidates a second, beside one worker.

    python tests/benchmarks/bench_sharing.py
    python tests/benchmarks/bench_sharing.py --device cuda --precision bf16 --images 200 \
        --candidates 96 [--mps]

Workers are plain processes, each with the supernet and the images on the device, as Ray's workers
with a fraction of a GPU have them. All are there from the start; in each round one, two and four of
them in turn share the same number of candidates out, uniformly drawn ones, while the others wait.
So a ratio compares neighbours in time. --mps starts CUDA's multi-process service for the time of
the run, with a pipe folder of its own. Needs neither Ray nor Optuna.

Prints one JSON line: candidates a second, how many times as many as with one worker, and what each
worker has reserved on the GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from evaluation_case import Case
from measuring import progress, ratios, report, spread

from supernet import SubnetEvaluator

# Forked, so that what is imported is imported once: this process does not touch the device.
_PROCESSES = multiprocessing.get_context("fork")
_CONTROL = "nvidia-cuda-mps-control"
_POLL_S = 1.0


def main() -> None:
    """Start the workers, take turns, and print the figures."""
    args = _arguments()
    with _mps() if args.mps else nullcontext(), _workers(args, max(args.workers)) as pipes:
        progress(f"{args.rounds} rounds of {', '.join(map(str, args.workers))} workers")
        seconds: dict[str, list[float]] = {str(n): [] for n in args.workers}
        for round_ in range(1 + args.rounds):
            for n in args.workers:
                begin = time.perf_counter()
                _evaluate(pipes[:n], args.candidates, round_)
                if round_:  # the first one is the warm-up
                    seconds[str(n)].append(time.perf_counter() - begin)
        memory = [_ask(pipe, ("memory", 0, 0)) for pipe in pipes]
    first = str(args.workers[0])
    figures: dict[str, Any] = {
        "model": args.model,
        "space": args.space,
        "images": args.images,
        "precision": args.precision,
        "mps": args.mps,
        "candidates": args.candidates,
        "candidates_a_second": {
            n: spread([args.candidates / s for s in times]) for n, times in seconds.items()
        },
        f"time_to_that_of_{first}": ratios(seconds, first),
        "reserved_mib": [round(n_bytes / 2**20, 1) for n_bytes in memory],
    }
    report("sharing", figures, device=args.device)


def _evaluate(pipes: Sequence[Connection], n_candidates: int, seed: int) -> None:
    """Have the workers share the candidates out, and wait for all."""
    for k, pipe in enumerate(pipes):
        share = len(range(k, n_candidates, len(pipes)))
        pipe.send(("evaluate", share, f"{seed}/{k}"))
    for pipe in pipes:
        _answer(pipe)


def _ask(pipe: Connection, message: tuple[str, int, Any]) -> Any:
    pipe.send(message)
    return _answer(pipe)


def _answer(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except EOFError:
        raise SystemExit("a worker died; its last words stand above") from None
    if isinstance(answer, str):
        raise SystemExit(f"a worker failed: {answer}")
    return answer


@contextmanager
def _workers(args: argparse.Namespace, n: int) -> Iterator[list[Connection]]:
    """Pipes to `n` processes that are ready to evaluate."""
    pipes, processes = [], []
    try:
        for _ in range(n):
            mine, theirs = _PROCESSES.Pipe()
            process = _PROCESSES.Process(target=_work, args=(theirs, args), daemon=True)
            process.start()
            theirs.close()  # so that a worker's death is the end of its pipe
            pipes.append(mine)
            processes.append(process)
        for k, pipe in enumerate(pipes, start=1):
            _answer(pipe)
            progress(f"worker {k} of {n} is ready")
        yield pipes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(pipe: Connection, args: argparse.Namespace) -> None:
    """Be a worker: do as the messages say, until the parent is gone."""
    parent = os.getppid()
    try:
        device = torch.device(args.device)
        if device.type == "cpu":
            torch.set_num_threads(1)
        case = Case.make(model=args.model, space=args.space, n_images=args.images, device=device)
        evaluator = SubnetEvaluator(case.supernet, case.split, precision=args.precision)
        pipe.send(True)
        while True:
            while not pipe.poll(_POLL_S):
                if os.getppid() != parent:
                    return
            what, share, seed = pipe.recv()
            if what == "memory":
                pipe.send(torch.cuda.memory_reserved(device) if device.type == "cuda" else 0)
                continue
            rng = random.Random(seed)
            subnets = [case.supernet.space.sample(rng) for _ in range(share)]
            for _, found in evaluator.evaluate_each(subnets):
                if isinstance(found, Exception):
                    raise found
            pipe.send(True)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _mps() -> Iterator[None]:
    """CUDA's multi-process service for the processes that start in the block."""
    with tempfile.TemporaryDirectory() as folder:
        places = {
            "CUDA_MPS_PIPE_DIRECTORY": str(Path(folder) / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(Path(folder) / "log"),
        }
        for place in places.values():
            Path(place).mkdir()
        os.environ.update(places)
        try:
            subprocess.run([_CONTROL, "-d"], check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"cannot start {_CONTROL}: {error}") from error
        try:
            yield
        finally:
            subprocess.run([_CONTROL], input="quit\n", text=True, check=False, stdout=sys.stderr)
            for name in places:
                os.environ.pop(name, None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--space", default="glora_r8", help="a preset")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=8, help="of a turn, over all workers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--mps", action="store_true", help="under CUDA's multi-process service")
    return parser.parse_args()


if __name__ == "__main__":
    main()
