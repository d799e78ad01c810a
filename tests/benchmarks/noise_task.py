"""A task in the form of VTAB-1k whose images are noise: for runs that only look at the path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE = 64


def write_noise_task(
    root: Path, task: str, sizes: Sequence[int], *, classes: int, seed: int = 0
) -> None:
    """Write `root/task/{train800,val200,test}.txt` and the images that they list.

    An image is noise around a colour of its class, so there is something to learn. Classes take
    turns. What is there already is not written again.

    Args:
        root: The folder of the tasks.
        task: The name of the task's folder.
        sizes: Images of train, val and test.
        classes: How many.
        seed: Of the colours and the noise.
    """
    folder = root / task
    rng = np.random.default_rng(seed)
    colours = rng.uniform(64, 192, size=(classes, 3))
    for name, size in zip(("train800", "val200", "test"), sizes, strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        lines = []
        for k in range(size):
            pixels = rng.normal(colours[k % classes], 48, size=(_SIDE, _SIDE, 3))
            path = folder / name / f"{k:04}.png"
            if not path.exists():
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(path.with_suffix(".tmp"), format="PNG")
                path.with_suffix(".tmp").replace(path)  # a run may be killed here
            lines.append(f"{name}/{path.name} {k % classes}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
