"""Hold a part of a split out: two splits of the same name, without an image in common."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL import Image

from supernet.data.drawing import draw_stratified
from supernet.data.examples import Examples, ImageFiles
from supernet.data.splits import Split, TensorSplit, pixel_fingerprint
from supernet.data.streamed import StreamedSplit
from supernet.errors import DataError


def n_held_out(n: int, share: float) -> int:
    """How many of `n` images a share is.

    Raises:
        DataError: None of them, or all.
    """
    held_out = round(share * n)
    if not 0 < held_out < n:
        raise DataError(
            f"a share of {share:g} of {n} images holds out {held_out}: both parts need at least one"
        )
    return held_out


def hold_out(split: Split, share: float, *, seed: int) -> tuple[Split, Split]:
    """The split without the images that are held out, and these; both in the order of the split.

    Args:
        split: Decoded or streamed.
        share: Of its images, above 0 and below 1; each class gives in proportion to its images.
        seed: Another seed, another draw.

    Raises:
        DataError: A part is left without images, or the split is of another kind.
    """
    labels = _labels(split)
    keys = [f"holdout/{index}" for index in range(len(labels))]
    held_out = draw_stratified(labels, keys, n_held_out(len(labels), share), seed=seed)
    others = sorted(set(range(len(labels))) - set(held_out))
    return _part(split, others), _part(split, held_out)


def _labels(split: Split) -> list[int]:
    if isinstance(split, TensorSplit):
        labels: list[int] = split.labels.tolist()
        return labels
    if isinstance(split, StreamedSplit):
        return list(split.examples.labels)
    raise DataError(f"a {type(split).__name__} cannot be held out in part")


def _part(split: Split, indices: list[int]) -> Split:
    if isinstance(split, TensorSplit):
        chosen = torch.tensor(indices)
        images = split.images[chosen.to(split.images.device)]
        labels = split.labels[chosen.to(split.labels.device)]
        return replace(
            split, images=images, labels=labels, fingerprint=pixel_fingerprint(images, labels)
        )
    assert isinstance(split, StreamedSplit), "it has labels"
    images_of = split.examples.images
    assert isinstance(images_of, ImageFiles), "it is streamed"
    examples = Examples(
        images=ChosenImages(images_of, tuple(indices)),
        labels=tuple(split.examples.labels[index] for index in indices),
        label_space=split.examples.label_space,
        scored_classes=split.examples.scored_classes,
    )
    return replace(split, examples=examples, fingerprint="")


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """Some of the images of a split, in an order of their own.

    Args:
        images: All of them.
        indices: The position of each that is chosen.
    """

    images: ImageFiles
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def describe(self, index: int) -> str:
        """As the images themselves say it."""
        return self.images.describe(self.indices[index])

    def identity(self, index: int) -> str:
        """As the images themselves say it."""
        return self.images.identity(self.indices[index])

    def open(self, index: int) -> Image.Image:
        """The image, decoded."""
        return self.images.open(self.indices[index])
