"""What training and evaluation read: a split, as batches of normalised images and labels.

Two implementations: `TensorSplit` holds every image decoded, `StreamedSplit` (in `streamed`)
decodes them anew each time. Legend: `n` images of the split, `b` of a batch, `c, h, w` the input
size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from supernet.data.examples import LabelSpace, check_split_name
from supernet.data.preprocessing import Preprocessing
from supernet.errors import DataError

Batch = tuple[Tensor, Tensor]
"""Images, float32 (b, c, h, w), normalised; labels, int64 (b,)."""

CPU = torch.device("cpu")
_DEVICE_SHARE = 0.5  # of the free device memory; the rest is for the network and its activations


class Split(Protocol):
    """Images and labels in a fixed order. Immutable: no method changes the split."""

    @property
    def name(self) -> str:
        """`train`, `val` or `test`."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How the images were made."""
        ...

    @property
    def num_classes(self) -> int:
        """Labels are 0 to num_classes - 1."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of the labels, where the source knows them."""
        ...

    @property
    def scored_classes(self) -> frozenset[int] | None:
        """The labels whose logits an evaluation compares; None for all."""
        ...

    @property
    def present(self) -> frozenset[int]:
        """The labels that at least one image has."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex: of pixels and labels if decoded, else of paths, labels and file sizes."""
        ...

    @property
    def device(self) -> torch.device:
        """Where batches lie."""
        ...

    def __len__(self) -> int: ...

    def gather(self, indices: Tensor) -> Batch:
        """The images at `indices`, int64 (b,), in that order.

        Raises:
            DataError: A streamed image does not decode; names it.
        """
        ...

    def gather_each(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """`gather` of each; a streamed split decodes ahead meanwhile: best for a whole epoch."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The whole split in order; the last batch may be smaller."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same split with batches on `device`."""
        ...


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """A split that is decoded once and kept as bytes.

    Cheap to make from arrays, read-only ones too: a worker makes one over arrays that it shares
    with others (`split.images.numpy()`), without a copy.

    Args:
        name: `train`, `val` or `test`.
        images: uint8 (n, c, h, w), a tensor or a numpy array. Never written to.
        labels: int64 (n,), a tensor or a numpy array.
        preprocessing: How the images were made; its mean and std normalise each batch.
        num_classes: Labels are below it.
        class_names: In the order of the labels, or None.
        fingerprint: `pixel_fingerprint` of the images and labels.
        device: Where batches lie. Where the images do not fit there, they stay in main memory.
        scored_classes: The labels whose logits an evaluation compares; None for all.

    Raises:
        DataError: Shapes, types or labels that do not fit each other.
    """

    name: str
    images: Tensor
    labels: Tensor
    preprocessing: Preprocessing
    num_classes: int
    class_names: tuple[str, ...] | None
    fingerprint: str
    device: torch.device = CPU
    scored_classes: frozenset[int] | None = None

    def __post_init__(self) -> None:
        check_split_name(self.name)
        LabelSpace(self.num_classes, self.class_names)  # checks that they agree
        images, labels = _as_tensor(self.images), _as_tensor(self.labels)
        shape = (len(labels), *self.preprocessing.input_size)
        if images.dtype != torch.uint8 or images.shape != shape:
            raise DataError(
                f"the images of {self.name} must be uint8 {shape}; "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        if labels.dtype != torch.int64 or labels.ndim != 1 or not len(labels):
            raise DataError(
                f"the labels of {self.name} must be int64 (n,) with n > 0; "
                f"got {labels.dtype} {tuple(labels.shape)}"
            )
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise DataError(
                f"the labels of {self.name} must be 0 to {self.num_classes - 1}; "
                f"got {int(labels.min())} to {int(labels.max())}"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "device", torch.device(self.device))

    @property
    def present(self) -> frozenset[int]:
        """The labels that at least one image has."""
        return frozenset(self.labels.tolist())

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: Tensor) -> Batch:
        """The images at `indices`, int64 (b,), in that order."""
        return (
            self._normalised(self.images[indices.to(self.images.device)]),
            self.labels[indices.to(self.labels.device)],
        )

    def gather_each(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """`gather` of each."""
        return map(self.gather, batches)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The whole split in order; the last batch may be smaller."""
        for part in in_order(len(self), batch_size):
            yield self._normalised(self.images[part]), self.labels[part]

    def to(self, device: torch.device | str) -> TensorSplit:
        """The same split with batches on `device`, where its images move too if they fit."""
        device = torch.device(device)
        images = self.images.to(device) if _fits(self.images, device) else self.images.cpu()
        return replace(self, images=images, labels=self.labels.to(device), device=device)

    def _normalised(self, images: Tensor) -> Tensor:
        if images.device.type == "cpu" and self.device.type == "cuda":
            images = images.pin_memory()  # so that the copy does not wait
        return self.preprocessing.normalise(images.to(self.device, non_blocking=True))


def missing_classes(train: Split, other: Split) -> tuple[str, ...]:
    """Classes of the training split that another split should have and has no image of: names, or
    labels where there are none.
    """
    names = train.class_names
    expected = train.present if other.scored_classes is None else other.scored_classes
    missing = sorted((train.present & expected) - other.present)
    return tuple(str(label) if names is None else names[label] for label in missing)


def pixel_fingerprint(images: Tensor, labels: Tensor) -> str:
    """SHA-256, in hex, over shape, decoded pixels and labels, in order.

    Args:
        images: uint8 (n, c, h, w).
        labels: int64 (n,).
    """
    digest = hashlib.sha256(f"{tuple(images.shape)}\n".encode())
    for tensor in (images, labels):
        array = np.ascontiguousarray(tensor.cpu().numpy())
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(array.data.cast("B"))
    return digest.hexdigest()


def in_order(n: int, batch_size: int) -> Iterator[slice]:
    """0..n cut into slices of `batch_size`, the last one perhaps smaller."""
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1; got {batch_size}")
    for start in range(0, n, batch_size):
        yield slice(start, min(start + batch_size, n))


def _fits(images: Tensor, device: torch.device) -> bool:
    there_already = images.device.type == device.type and device.index in (
        None,
        images.device.index,
    )
    if device.type != "cuda" or there_already:
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= _DEVICE_SHARE * free


def _as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """`values` as a tensor over the same memory."""
    if isinstance(values, Tensor):
        return values
    if not values.flags.writeable:
        values = np.asarray(_DeclaredWritable(values))
    return torch.from_numpy(values)


class _DeclaredWritable:
    """An array interface over read-only memory that PyTorch takes without a warning.

    PyTorch has no read-only tensors and warns once for each process. Nothing here writes: batches
    are copies. Numpy keeps this object as the base of the new array, so the memory stays alive.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
