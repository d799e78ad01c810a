"""A split that is too large to keep: every batch is decoded when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from supernet.data.decoding import decode, decode_files, default_workers, stack
from supernet.data.examples import Examples, ImageFiles, check_split_name
from supernet.data.preprocessing import Preprocessing
from supernet.data.splits import CPU, Batch, in_order
from supernet.errors import DataError


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split that is decoded anew on each pass, ahead of its reader, by a torch DataLoader.

    Args:
        name: `train`, `val` or `test`.
        examples: Images that open one by one, and their labels.
        preprocessing: How the images are made.
        workers: Processes that decode ahead in `batches` and `gather_each`, threads in `gather`;
            0 decodes in the calling thread.
        device: Where batches lie.

    Raises:
        DataError: Images that can only be read in order.
    """

    name: str
    examples: Examples
    preprocessing: Preprocessing
    workers: int = field(default_factory=default_workers)
    device: torch.device = CPU
    fingerprint: str = ""

    def __post_init__(self) -> None:
        check_split_name(self.name)
        if self.workers < 0:
            raise DataError(f"workers must not be negative; got {self.workers}")
        self._images()
        object.__setattr__(self, "device", torch.device(self.device))
        object.__setattr__(
            self, "fingerprint", self.fingerprint or listing_fingerprint(self.examples)
        )

    @property
    def num_classes(self) -> int:
        """Labels are 0 to num_classes - 1."""
        return self.examples.label_space.num_classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of the labels, where the source knows them."""
        return self.examples.label_space.class_names

    @property
    def scored_classes(self) -> frozenset[int] | None:
        """The labels whose logits an evaluation compares; None for all."""
        return self.examples.scored_classes

    @property
    def present(self) -> frozenset[int]:
        """The labels that at least one image has."""
        return frozenset(self.examples.labels)

    def __len__(self) -> int:
        return len(self.examples.labels)

    def gather(self, indices: Tensor) -> Batch:
        """The images at `indices`, int64 (b,), in that order.

        Raises:
            DataError: An image does not decode; names it.
        """
        chosen = indices.tolist()
        decoded = decode_files(self._images(), chosen, self.preprocessing, self.workers)
        return self._batch(
            stack(decoded, len(chosen), self.preprocessing),
            torch.tensor([self.examples.labels[i] for i in chosen], dtype=torch.int64),
        )

    def gather_each(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """`gather` of each, decoded ahead by `workers` processes.

        Raises:
            DataError: An image does not decode; names it.
        """
        loader: DataLoader[Any] = DataLoader(
            _Decoded(self._images(), self.examples.labels, self.preprocessing),
            batch_sampler=[indices.tolist() for indices in batches],
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else a loader draws its seed from the global generator
        )
        for result in loader:
            if isinstance(result, str):
                raise DataError(result)
            images, labels = result
            yield self._batch(images, labels)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The whole split in order; the last batch may be smaller."""
        indices = torch.arange(len(self))
        return self.gather_each([indices[part] for part in in_order(len(self), batch_size)])

    def to(self, device: torch.device | str) -> StreamedSplit:
        """The same split with batches on `device`."""
        return replace(self, device=torch.device(device))

    def _images(self) -> ImageFiles:
        images = self.examples.images
        if not isinstance(images, ImageFiles):
            raise DataError(
                f"{images.describe(0)}: images that can only be read in order cannot be streamed"
            )
        return images

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        images = images.to(self.device, non_blocking=True)
        return self.preprocessing.normalise(images), labels.to(self.device, non_blocking=True)


class _Decoded(Dataset[Any]):
    """Whole batches for a DataLoader: uint8 (b, c, h, w) and labels, or what went wrong.

    An error goes back as text, since a DataLoader would wrap an exception in its own words and the
    worker's traceback.
    """

    def __init__(
        self, images: ImageFiles, labels: tuple[int, ...], preprocessing: Preprocessing
    ) -> None:
        self._images, self._labels = images, labels
        self._preprocessing = preprocessing
        self._transform = preprocessing.transform()

    def __getitems__(self, indices: Sequence[int]) -> Batch | str:
        try:
            decoded = (decode(self._images, i, self._transform) for i in indices)
            stacked = stack(decoded, len(indices), self._preprocessing)
        except DataError as error:
            return str(error)
        return stacked, torch.tensor([self._labels[i] for i in indices], dtype=torch.int64)


def _as_it_is(batch: Any) -> Any:
    return batch


def listing_fingerprint(examples: Examples) -> str:
    """SHA-256, in hex, over relative paths, file sizes and labels, in order; decodes nothing."""
    digest = hashlib.sha256()
    for index, label in enumerate(examples.labels):
        digest.update(f"{examples.images.identity(index)}\0{label}\n".encode())
    return digest.hexdigest()
