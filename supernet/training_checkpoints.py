"""What a training keeps to go on after an interruption: weights and optimizer state in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from supernet.checkpoints import load_checkpoint, save_checkpoint
from supernet.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Where training keeps what it needs to go on after an interruption.

    Args:
        path: One file, replaced as a whole.
        every_s: Seconds between two writes; a write happens at the end of an epoch.
        identity: What the run is made of (fingerprints, space); a checkpoint of another is refused.
        on_write: Called with the path after each write.
    """

    path: Path
    every_s: float = 30.0
    identity: Mapping[str, str]
    on_write: Callable[[Path], None] | None = None


def save_training(
    path: Path,
    metadata: Mapping[str, str],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averaged: Mapping[str, Tensor],
) -> None:
    """Write weights, optimizer state, and the averages of the weights where there are any.

    Raises:
        CheckpointError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": p for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{slot}/{name}"] = value
    tensors |= {f"average/{name}": tensor for name, tensor in averaged.items()}
    save_checkpoint(path, tensors, metadata)


def trained_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a checkpoint, by parameter, without the optimizer's state."""
    return _below("model/", tensors)


def final_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with which a training ends that wrote this checkpoint last: their averages where
    there are any.
    """
    return _below("average/", tensors) or trained_state(tensors)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def restore_training(
    path: Path,
    identity: Mapping[str, str],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averaged: Mapping[str, Tensor],
) -> int:
    """Put weights, optimizer state and averages back; the number of epochs that they have seen.

    Raises:
        CheckpointError: The file is damaged, or of another run or network.
    """
    tensors, metadata = load_checkpoint(path, expected=identity)
    saved = trained_state(tensors)
    if {k: t.shape for k, t in saved.items()} != {k: p.shape for k, p in parameters.items()}:
        raise CheckpointError(f"{str(path)!r} holds the training of another network")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
        for name, average in averaged.items():
            average.copy_(tensors[f"average/{name}"])
    order = [id(p) for group in optimizer.param_groups for p in group["params"]]
    places = {name: order.index(id(parameter)) for name, parameter in parameters.items()}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, slot, name = key.split("/", 2)
            state.setdefault(places[name], {})[slot] = tensor
    # load_state_dict knows which slots live on the device and which on the CPU
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(metadata["epoch"])
