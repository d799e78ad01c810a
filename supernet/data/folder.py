"""Images in one folder for each class: `ROOT/train/<class>/*.jpg`, val and test beside train."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from supernet.data.drawing import draw_stratified
from supernet.data.examples import Examples, LabelSpace, check_split_name
from supernet.data.files import (
    EXTENSIONS,
    FileImages,
    check_distinct,
    check_root,
    images_below,
    stays_below,
    visible,
)
from supernet.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderSource:
    """A folder for each split, in it a folder for each class.

    Labels count the classes of the training folder, sorted by name. Hidden files and files that
    are no images by their extension are passed over; images may lie deeper below their class.

    Args:
        root: Holds the folders of the splits.
        train: The folder of the training images.
        val: That of the validation images. Where it does not exist, they are drawn from the
            training images and taken out of them.
        test: That of the test images.
        val_fraction: Of the training images that are drawn for val then, the same of each class as
            nearly as possible; one of each class stays in train.
        seed: Of that draw.

    Raises:
        DataError: A folder outside of root, one folder for two splits, or a wrong fraction.
    """

    root: str | Path
    train: str = "train"
    val: str = "val"
    test: str = "test"
    val_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (self.train, self.val, self.test):
            if not stays_below(name):
                raise DataError(f"a split is a folder below the data's root; got {name!r}")
        check_distinct([("train", self.train), ("val", self.val), ("test", self.test)])
        if not 0 < self.val_fraction < 1:
            raise DataError(f"val_fraction must be above 0 and below 1; got {self.val_fraction}")

    def label_space(self) -> LabelSpace:
        """The classes: the folders of the training folder, sorted.

        Raises:
            DataError: The training folder is not there, or has no class.
        """
        folder = self._folder(self.train)
        names = tuple(sorted(p.name for p in visible(folder) if p.is_dir()))
        if not names:
            raise DataError(f"{folder} has no folder; expected one for each class")
        return LabelSpace(len(names), names)

    def examples(self, split: str) -> Examples:
        """The images of one split, sorted by path.

        Raises:
            DataError: An unknown or empty split, a folder that is not there, a class that train
                does not have (for `train`, in any split), an image in no class folder, or a class
                without training images.
        """
        check_split_name(split)
        val_is_drawn = not (check_root(self.root) / self.val).exists()
        if split == "test" or (split == "val" and not val_is_drawn):
            return self._examples(*self._listed(getattr(self, split)))
        files, labels = self._listed(self.train)
        # This reports a wrong class folder at launch, and reads no image of the other splits.
        for other in (self.val, self.test):
            if (Path(self.root) / other).is_dir():
                self._check_classes(Path(self.root) / other)
        for label, name in enumerate(self.label_space().class_names or ()):
            if label not in labels:
                raise DataError(f"class {name!r} has no image in {self._folder(self.train)}")
        if not val_is_drawn:
            return self._examples(files, labels)
        n_val = max(1, round(self.val_fraction * len(files)))
        val = set(draw_stratified(labels, files, n_val, seed=self.seed, leave=1))
        logger.info("no folder %r: %d of %d train images are val", self.val, len(val), len(files))
        if not val:
            raise DataError(
                f"{self._folder(self.train)} has one image a class, so none can be taken for val; "
                f"add images, or a folder {self.val!r}"
            )
        chosen = [i for i in range(len(files)) if (i in val) == (split == "val")]
        return self._examples([files[i] for i in chosen], [labels[i] for i in chosen])

    def _folder(self, name: str) -> Path:
        folder = check_root(self.root) / name
        if not folder.is_dir():
            raise DataError(f"the folder {name!r} is not there: no {folder}")
        return folder

    def _listed(self, name: str) -> tuple[list[str], list[int]]:
        """Paths of a split's images relative to root, and their labels."""
        folder = self._folder(name)
        label_of = {c: i for i, c in enumerate(self.label_space().class_names or ())}
        files: list[str] = []
        labels: list[int] = []
        self._check_classes(folder)
        for entry in visible(folder):
            if entry.is_dir():
                found = images_below(entry)
                files += [p.relative_to(self.root).as_posix() for p in found]
                labels += [label_of[entry.name]] * len(found)
            elif entry.suffix.lower() in EXTENSIONS:
                raise DataError(f"{entry} lies in no class folder; move it into one, or away")
        if not files:
            raise DataError(
                f"no image below {folder}; accepted are files named {' '.join(sorted(EXTENSIONS))}"
            )
        return files, labels

    def _check_classes(self, folder: Path) -> None:
        """Raise DataError for a class folder that the training folder does not have."""
        known = self.label_space().class_names or ()
        unknown = [p.name for p in visible(folder) if p.is_dir() and p.name not in known]
        if unknown:
            raise DataError(
                f"{folder} has classes that {self.train!r} does not have: {', '.join(unknown)}; "
                f"its classes are {', '.join(known)}"
            )

    def _examples(self, files: list[str], labels: list[int]) -> Examples:
        return Examples(
            FileImages(Path(self.root), tuple(files)), tuple(labels), self.label_space()
        )
