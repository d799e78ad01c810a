"""SHA-256 over named tensors: the identity of weights, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from supernet.backbones import head_names


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest over names, dtypes, shapes and bytes; independent of the mapping's order and
    device.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # a view as bytes, because numpy knows no bfloat16
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def backbone_fingerprint(backbone: nn.Module) -> str:
    """Of a plain backbone's weights that do not train: all but the classifier head, which is a
    function of the seed.
    """
    heads = tuple(f"{name}." for name in head_names(backbone))
    state = backbone.state_dict()
    return fingerprint({name: t for name, t in state.items() if not name.startswith(heads)})
