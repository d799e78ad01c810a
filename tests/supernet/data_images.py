"""Real image files for the tests of data: small, all different, in class folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from supernet.data import Preprocessing

PREPROCESSING = Preprocessing(
    input_size=(3, 16, 16),
    interpolation="bicubic",
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    crop_pct=1.0,
    crop_mode="squash",
)


def pixels(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    """Random colours, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, seed: int, height: int = 20, width: int = 24) -> Path:
    """Write one image in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, height, width)).save(path)
    return path


def write_classes(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write `counts[c]` images into `folder/c` for every class c, PNG and JPEG in turn."""
    for name, count in counts.items():
        for i in range(count):
            seed += 1
            write_image(folder / name / f"{i:03d}.{('png', 'jpg')[i % 2]}", seed)
    return folder


def truncate(path: Path) -> Path:
    """Cut a file in half: it still looks like an image at its beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path
