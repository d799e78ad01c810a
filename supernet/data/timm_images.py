"""The images of one split of a timm data set, opened anew in every process that reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from supernet.data.timm_reading import OpenedDataset, open_dataset


class _Chosen:
    """Some images of a data set, by position.

    A worker of a loader or a cluster opens the data set itself: an open tar file has one position,
    which forked processes would share, and does not pickle.
    """

    def __init__(self, opened: OpenedDataset, positions: Sequence[int]) -> None:
        self._dataset = opened.dataset
        self._positions = tuple(positions)
        self._opened: tuple[int, OpenedDataset] | None = (os.getpid(), opened)

    def __len__(self) -> int:
        return len(self._positions)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def describe(self, index: int) -> str:
        """The data set, the number of the image in it, and its file where it has one."""
        return self._here().describe(self._positions[index])

    def identity(self, index: int) -> str:
        """Data set and split, and the image's path and size, or its number where it is no file."""
        image = self._here().identity(self._positions[index])
        return f"{self._dataset.name}\0{self._dataset.split}\0{image}"

    def _here(self) -> OpenedDataset:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_dataset(self._dataset)
        return self._opened[1]


class TimmImages(_Chosen):
    """Images of a data set with random access."""

    def open(self, index: int) -> Image.Image:
        """One image, decoded."""
        return self._here().image(self._positions[index])


class TimmStream(_Chosen):
    """Images of a data set that can only be read in order; positions ascend."""

    def in_order(self) -> Iterator[Image.Image]:
        """All of them, decoded, in order.

        Raises:
            DataError: One that the reader cannot decode.
        """
        chosen = set(self._positions)
        for position, (image, _) in enumerate(self._here().samples()):
            if position in chosen:
                yield image
