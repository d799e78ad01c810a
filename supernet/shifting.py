"""Light augmentation: images moved by a few pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Each image moved by up to `pixels` in each direction, drawn from PyTorch's default generator;
    zero, the mean colour of normalised images, comes in.

    Args:
        images: (b, c, h, w).
        pixels: 1 or more.
    """
    b, _, h, w = images.shape
    padded = F.pad(images, (pixels,) * 4)
    places = torch.randint(0, 2 * pixels + 1, (b, 2)).tolist()  # on the CPU, for every device alike
    return torch.stack([padded[k, :, y : y + h, x : x + w] for k, (y, x) in enumerate(places)])
