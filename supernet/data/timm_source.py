"""What timm's `create_dataset` reads: torchvision, Hugging Face, webdataset, folders, tar files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from supernet.data.drawing import draw_stratified
from supernet.data.examples import Examples, LabelSpace, check_split_name
from supernet.data.timm_dataset import TimmDataset
from supernet.data.timm_images import TimmImages, TimmStream
from supernet.data.timm_reading import OpenedDataset, open_dataset
from supernet.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TimmSource:
    """A data set by timm's name for it.

    Labels are those of the training split; another split's are matched to them by class name, where
    the reader knows names. Subsets are drawn in proportion to the classes. A data set that can only
    be read in order (wds, hfids, tfds) is read once for its labels and once for its images.

    Args:
        name: `torch/<torchvision data set>`, `hfds/<Hugging Face name>`, `hfids/...`, `tfds/...`,
            `wds/<name>`, or `folder` for a folder of class folders, or a tar file, for each split.
        root: Where the data lies, or is cached. For `folder`, it holds an entry for each split.
        train_split: The reader's name of the training split.
        val_split: That of the validation split; None draws `n_val` images from train.
        test_split: That of the test split; None if there is none.
        n_train: Take so many of the training images; None takes all.
        n_val: Take so many of the validation images; None takes all of `val_split`.
        download: Let torchvision, tfds or hfids download what is missing.
        seed: Of the draws.
        input_key: The field that holds the image, where it is not the reader's default.
        target_key: The field that holds the label, likewise.
        num_classes: Where the reader has no class names; None takes the largest training label.

    Raises:
        DataError: A name that timm does not read, a number below 1, or splits that may overlap.
    """

    name: str
    root: str | Path | None = None
    train_split: str = "train"
    val_split: str | None = None
    test_split: str | None = "test"
    n_train: int | None = None
    n_val: int | None = None
    download: bool = False
    seed: int = 0
    input_key: str | None = None
    target_key: str | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_train", "n_val", "num_classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} must be at least 1, or None; got {value}")
        self._check_apart()

    def label_space(self) -> LabelSpace:
        """The classes of the training split.

        Raises:
            DataError: It cannot be read.
        """
        return self._label_space(open_dataset(self._dataset("train")))

    def examples(self, split: str) -> Examples:
        """The images of one split, in the data set's order.

        Raises:
            DataError: An unknown split, one that is not there, or more images wanted than it has.
        """
        check_split_name(split)
        self._check_apart()
        train = open_dataset(self._dataset("train"))
        space = self._label_space(train)
        if split == "train" or (split == "val" and self.val_split is None):
            labels = train.labels
            val = self._val_from_train(labels)
            if split == "val":
                return _examples(train, labels, val, space)
            self._check_test_folders(space)
            taken = set(val)
            rest = [i for i in range(len(labels)) if i not in taken]
            return _examples(train, labels, self._draw(labels, rest, self.n_train, split), space)
        other = open_dataset(self._dataset(split))
        labels = _matched(other, train)
        wanted = self.n_val if split == "val" else None
        chosen = self._draw(labels, range(len(labels)), wanted, split)
        return _examples(other, labels, chosen, space)

    def _dataset(self, split: str) -> TimmDataset:
        timm_split = getattr(self, f"{split}_split")
        if timm_split is None:
            raise DataError(f"{self.name} has no {split} split: {split}_split is not set")
        root = None if self.root is None else str(self.root)
        return TimmDataset(
            self.name, root, timm_split, self.download, self.input_key, self.target_key
        )

    def _check_test_folders(self, space: LabelSpace) -> None:
        """Where a class is a folder, tell at launch of one that train does not have."""
        if self.test_split is None or space.class_names is None:
            return
        dataset = self._dataset("test")
        unknown = sorted(set(dataset.class_folders()) - set(space.class_names))
        if unknown:
            raise DataError(
                f"{dataset} has classes that {self._dataset('train')} does not have: "
                f"{', '.join(unknown)}"
            )

    def _check_apart(self) -> None:
        """Val and test must not hold train images, nor one another's."""
        given = [s for s in ("train", "val", "test") if getattr(self, f"{s}_split") is not None]
        for first, second in combinations(given, 2):
            if self._dataset(first).may_overlap(self._dataset(second)):
                raise DataError(
                    f"{first}_split={getattr(self, f'{first}_split')!r} and "
                    f"{second}_split={getattr(self, f'{second}_split')!r} of {self.name} may hold "
                    f"the same images; name splits that do not, leave val_split out and give n_val "
                    f"to draw val from train"
                )

    def _label_space(self, train: OpenedDataset) -> LabelSpace:
        names = train.class_names()
        if names is not None:
            if self.num_classes not in (None, len(names)):
                raise DataError(
                    f"{self.name} has {len(names)} classes; got num_classes={self.num_classes}"
                )
            return LabelSpace(len(names), names)
        if self.num_classes is not None:
            return LabelSpace(self.num_classes)
        return LabelSpace(max(train.labels, default=0) + 1)

    def _val_from_train(self, labels: Sequence[int]) -> list[int]:
        if self.val_split is not None or self.n_val is None:
            return []
        return self._draw(labels, range(len(labels)), self.n_val, "val")

    def _draw(
        self, labels: Sequence[int], among: Sequence[int], n: int | None, split: str
    ) -> list[int]:
        if n is None:
            return list(among)
        if n > len(among):
            raise DataError(f"n_{split}={n}, but {self.name} has {len(among)} images for it")
        drawn = draw_stratified(
            [labels[i] for i in among], [str(i) for i in among], n, seed=self.seed
        )
        return [among[i] for i in drawn]


def _examples(
    opened: OpenedDataset, labels: Sequence[int], chosen: Sequence[int], space: LabelSpace
) -> Examples:
    if not chosen:
        raise DataError(
            f"no image is left in {opened.dataset}: give val_split, or n_val below the number of "
            f"training images"
        )
    kind = TimmStream if opened.in_order_only else TimmImages
    return Examples(kind(opened, chosen), tuple(labels[i] for i in chosen), space)


def _matched(other: OpenedDataset, train: OpenedDataset) -> list[int]:
    """The labels of `other` in the numbering of `train`: each reader numbers what it finds."""
    theirs, ours = other.class_to_idx, train.class_to_idx
    if not theirs or not ours or theirs == ours:
        return other.labels
    if unknown := sorted(set(theirs) - set(ours)):
        raise DataError(
            f"{other.dataset} has classes that {train.dataset} does not have: {', '.join(unknown)}"
        )
    renumbered = {label: ours[name] for name, label in theirs.items()}
    return [renumbered[label] for label in other.labels]
