"""Grey images that are held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Grey images in memory: uint8 (n, h, w), the number of each in its data set, and its name."""

    pixels: np.ndarray
    numbers: np.ndarray
    data_set: str

    def __len__(self) -> int:
        return len(self.pixels)

    def describe(self, index: int) -> str:
        """The data set and the number in it."""
        return f"{self.data_set}, image {self.numbers[index]}"

    def identity(self, index: int) -> str:
        """The data set, the number in it and the size in bytes."""
        return f"{self.data_set}/{self.numbers[index]}\0{self.pixels[index].nbytes}"

    def open(self, index: int) -> Image.Image:
        """The image in mode L."""
        return Image.fromarray(self.pixels[index])
