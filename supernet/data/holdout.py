"""Hold a part of a split out: two splits of the same name, without an image in common."""

from __future__ import annotations

from collections.abc import Sequence
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


def fold(splits: Sequence[Split], k: int, n: int, *, seed: int) -> tuple[TensorSplit, TensorSplit]:
    """Fold `k` of `n` of all images of several splits: the images outside of it, named `train`, and
    those in it, named `val`. Each class gives to each fold in proportion to its images.

    Args:
        splits: Decoded, of the same classes and preprocessing.
        k: From 0.
        n: Folds, 2 or more; together they hold each image once.
        seed: Another seed, other folds.

    Raises:
        DataError: A fold is left without images, or a split is not decoded.
    """
    decoded = [split for split in splits if isinstance(split, TensorSplit)]
    if len(decoded) < len(splits):
        raise DataError("folds need splits whose images are decoded and fit into memory")
    first = decoded[0]
    images = torch.cat([split.images for split in decoded])
    labels = torch.cat([split.labels for split in decoded])
    whole = replace(first, images=images, labels=labels, fingerprint="")
    left = list(range(len(whole)))
    for earlier in range(k + 1):
        keys = [f"fold/{index}" for index in left]
        of_left = [int(labels[index]) for index in left]
        share = round(len(left) / (n - earlier))
        drawn = {left[place] for place in draw_stratified(of_left, keys, share, seed=seed)}
        left = [index for index in left if index not in drawn]
    if not drawn or len(drawn) == len(whole):
        raise DataError(f"{n} folds of {len(whole)} images leave one without images")
    rest = [index for index in range(len(whole)) if index not in drawn]
    return (
        replace(_tensor_part(whole, rest), name="train"),
        replace(_tensor_part(whole, sorted(drawn)), name="val"),
    )


def _labels(split: Split) -> list[int]:
    if isinstance(split, TensorSplit):
        labels: list[int] = split.labels.tolist()
        return labels
    if isinstance(split, StreamedSplit):
        return list(split.examples.labels)
    raise DataError(f"a {type(split).__name__} cannot be held out in part")


def _part(split: Split, indices: list[int]) -> Split:
    if isinstance(split, TensorSplit):
        return _tensor_part(split, indices)
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


def _tensor_part(split: TensorSplit, indices: list[int]) -> TensorSplit:
    chosen = torch.tensor(indices)
    images = split.images[chosen.to(split.images.device)]
    labels = split.labels[chosen.to(split.labels.device)]
    return replace(
        split, images=images, labels=labels, fingerprint=pixel_fingerprint(images, labels)
    )


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
