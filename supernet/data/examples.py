"""What a source of data hands out: images that are not decoded yet, their labels, and the classes.

A source (digits, lists, folders, timm) says which images a split has, and checks its lists and
that its files exist. It decodes nothing: that is done once, by `supernet.data.loading`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol, runtime_checkable

from PIL import Image

from supernet.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelSpace:
    """The classes: how many, and their names where the source knows them."""

    num_classes: int
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise DataError(f"num_classes must be at least 1; got {self.num_classes}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise DataError(f"{self.num_classes} classes, but {len(self.class_names)} class names")


class UndecodedImages(Protocol):
    """Images of one split, in order.

    Pickles without pixels read from files; `open` may be called from several threads and, after
    pickling or forking, from several processes.
    """

    def __len__(self) -> int: ...

    def describe(self, index: int) -> str:
        """What an error calls the image: its file, and the line of the list that names it."""
        ...

    def identity(self, index: int) -> str:
        """What tells the image from others without decoding it: relative path and size in bytes."""
        ...


@runtime_checkable
class ImageFiles(UndecodedImages, Protocol):
    """Images that can be opened one by one, in any order."""

    def open(self, index: int) -> Image.Image:
        """The image, decoded.

        Raises:
            OSError, SyntaxError, ValueError, ...: Whatever PIL raises; `decoding` gives it a name.
        """
        ...


@runtime_checkable
class ImageStream(UndecodedImages, Protocol):
    """Images that can only be read one after the other."""

    def in_order(self) -> Iterator[Image.Image]:
        """All images of the split, decoded, in the order of the labels."""
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """The images and labels of one split.

    Args:
        images: Not decoded yet.
        labels: One for each image.
        label_space: The classes.
        scored_classes: The labels whose logits an evaluation compares; None for all.

    Raises:
        DataError: No images, a label that is no class or is not scored; names the image.
    """

    images: ImageFiles | ImageStream
    labels: tuple[int, ...]
    label_space: LabelSpace
    scored_classes: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images, but {len(self.labels)} labels")
        if not self.labels:
            raise DataError("a split needs at least one image; got none")
        k = self.label_space.num_classes
        for index, label in enumerate(self.labels):
            if not 0 <= label < k:
                raise DataError(
                    f"{self.images.describe(index)}: label {label} is not a class; accepted are "
                    f"0 to {k - 1} ({k} classes)"
                )
            if self.scored_classes is not None and label not in self.scored_classes:
                raise DataError(
                    f"{self.images.describe(index)}: label {label} is not among the "
                    f"{len(self.scored_classes)} classes whose logits are compared"
                )


class Source(Protocol):
    """A place that data comes from. Frozen, comparable, and picklable."""

    def label_space(self) -> LabelSpace:
        """The classes, without decoding anything.

        Raises:
            DataError: The data is not there.
        """
        ...

    def examples(self, split: str) -> Examples:
        """The images of `train`, `val` or `test`, always in the same order.

        Raises:
            DataError: An unknown or empty split, a missing file, or a wrong label; names the file
                and the line.
        """
        ...


def check_split_name(split: str) -> None:
    """Raise DataError unless `split` is train, val or test."""
    if split not in SPLITS:
        raise DataError(f"a split is one of {', '.join(SPLITS)}; got {split!r}")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message on a name that is not known, with the nearest ones that are."""
    known = list(known)
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what} {name!r}; {hint}Known are {', '.join(known)}"
