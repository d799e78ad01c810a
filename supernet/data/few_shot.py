"""Few-shot data sets of fine-grained classes, in the lists that adapter papers share.

The lists are those of Y. Zhang, K. Zhou, Z. Liu: Neural Prompt Search, 2022 (NOAH). They are in its
repository, in `data/few-shot/<folder>/annotations`, and were read there:

- `train_meta.list.num_shot_{1,2,4,8,16}.seed_{0,1,2}`, `val_meta.list` and `test_meta.list`, with
  lines `relative/path label`. Labels count from 0.
- Paths are relative to `images/` in the data set's folder. Those of the cars start with
  `cars_train/` or `cars_test/` and are relative to the data set's folder itself.
- The folders of the lists are `food101`, `oxford-flowers102`, `standford-cars` (spelt so),
  `oxford-pets` and `fgvc-aircraft`. NOAH's own scripts read `food-101`, `oxford_flowers`,
  `stanford_cars`, `oxford_pets` and `fgvc_aircraft`. Both names are accepted.

The images are not in the repository. That they lie below `images/` is what its loader expects.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from supernet.data.examples import Examples, LabelSpace, check_split_name, unknown_name
from supernet.data.files import folder_below
from supernet.data.lists import listed_examples
from supernet.errors import DataError


@dataclass(frozen=True)
class FewShotSet:
    """A data set: its number of classes, and other names that its folder may have."""

    num_classes: int
    other_folders: tuple[str, ...] = ()


FEW_SHOT_SETS = MappingProxyType(
    {
        "food-101": FewShotSet(101, ("food101",)),
        "oxford-flowers102": FewShotSet(102, ("oxford_flowers",)),
        "stanford_cars": FewShotSet(196, ("standford-cars",)),
        "oxford_pets": FewShotSet(37, ("oxford-pets",)),
        "fgvc_aircraft": FewShotSet(100, ("fgvc-aircraft",)),
    }
)
"""The five data sets by name."""


@dataclass(frozen=True)
class FewShotSource:
    """One data set with a few training images of each class.

    Validation and test images are the same for every number of shots.

    Args:
        root: The folder that holds the data sets.
        dataset: One of `FEW_SHOT_SETS`.
        shots: Training images of each class: 1, 2, 4, 8 or 16 in the lists that are shared.
        seed: Of the list of the training images: 0, 1 or 2 there.

    Raises:
        DataError: An unknown data set.
    """

    root: str | Path
    dataset: str
    shots: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dataset not in FEW_SHOT_SETS:
            raise DataError(unknown_name("few-shot data set", self.dataset, FEW_SHOT_SETS))

    def label_space(self) -> LabelSpace:
        """The number of classes; the lists have no names for them."""
        return LabelSpace(FEW_SHOT_SETS[self.dataset].num_classes)

    def examples(self, split: str) -> Examples:
        """The images of one list, in its order.

        Raises:
            DataError: An unknown split; a folder, list or image that is not there; a malformed
                line; a wrong label; an empty list. Names the list and the line.
        """
        check_split_name(split)
        folder = folder_below(self.root, self.dataset, *FEW_SHOT_SETS[self.dataset].other_folders)
        if split == "train":
            name = train_list(folder, self.shots, self.seed)
        else:
            name = f"annotations/{split}_meta.list"
        images = folder / "images"
        return listed_examples(
            folder / name, name, images if images.is_dir() else folder, self.label_space()
        )


def train_list(folder: Path, shots: int, seed: int) -> str:
    """The list of the training images, relative to the data set's folder.

    Args:
        folder: The data set's.
        shots: Images of each class.
        seed: Of the draw of the list.

    Raises:
        DataError: There is no such list; says which there are.
    """
    found: dict[int, list[int]] = defaultdict(list)
    for path in (folder / "annotations").glob("train_meta.list.num_shot_*.seed_*"):
        if match := re.fullmatch(r"train_meta\.list\.num_shot_(\d+)\.seed_(\d+)", path.name):
            found[int(match[1])].append(int(match[2]))
    if seed not in found[shots]:
        known = "; ".join(
            f"{n} (seed {', '.join(map(str, sorted(seeds)))})"
            for n, seeds in sorted(found.items())
            if seeds
        )
        raise DataError(
            f"{folder / 'annotations'} has no list train_meta.list.num_shot_{shots}.seed_{seed}; "
            f"there are lists for these shots: {known or 'none'}"
        )
    return f"annotations/train_meta.list.num_shot_{shots}.seed_{seed}"
