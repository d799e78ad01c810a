"""VTAB-1k as it is exchanged: lists `ROOT/<task>/train800.txt` of lines `relative/path label`.

X. Zhai et al.: A Large-scale Study of Representation Learning with the Visual Task Adaptation
Benchmark, 2019; the lists of 800, 200 and all test images are those that adapter papers share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from supernet.data.examples import Examples, LabelSpace, check_split_name, unknown_name
from supernet.data.files import check_distinct, folder_below, stays_below
from supernet.data.lists import listed_examples
from supernet.errors import DataError

VTAB_CLASSES = MappingProxyType(
    {
        "cifar": 100,
        "caltech101": 102,
        "dtd": 47,
        "oxford_flowers102": 102,
        "oxford_iiit_pet": 37,
        "svhn": 10,
        "sun397": 397,
        "patch_camelyon": 2,
        "eurosat": 10,
        "resisc45": 45,
        "diabetic_retinopathy": 5,
        "clevr_count": 8,
        "clevr_dist": 6,
        "dmlab": 6,
        "kitti": 4,
        "dsprites_loc": 16,
        "dsprites_ori": 16,
        "smallnorb_azi": 18,
        "smallnorb_ele": 9,
    }
)
"""Task to its number of classes, in the benchmark's order."""


@dataclass(frozen=True)
class VTABSource:
    """One task: three list files in a folder.

    Args:
        root: The folder that holds the tasks.
        task: The task's folder below it.
        train: The list of the training images, in the task's folder.
        val: That of the validation images.
        test: That of the test images.
        num_classes: Needed for a task that is not VTAB's, overrides the table for one that is.

    Raises:
        DataError: An unknown task without `num_classes`, a task or list outside of its folder, or
            one list for two splits.
    """

    root: str | Path
    task: str
    train: str = "train800.txt"
    val: str = "val200.txt"
    test: str = "test.txt"
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if not stays_below(self.task):
            raise DataError(f"a task is a folder below the data's root; got {self.task!r}")
        for name in (self.train, self.val, self.test):
            if not stays_below(name):
                raise DataError(f"a list is a file in the task's folder; got {name!r}")
        check_distinct([("train", self.train), ("val", self.val), ("test", self.test)])
        self.label_space()

    def label_space(self) -> LabelSpace:
        """The number of classes; the lists have no names for them."""
        if self.num_classes is not None:
            return LabelSpace(self.num_classes)
        if self.task not in VTAB_CLASSES:
            raise DataError(
                f"{unknown_name('VTAB task', self.task, VTAB_CLASSES)}; "
                f"for another one give num_classes"
            )
        return LabelSpace(VTAB_CLASSES[self.task])

    def examples(self, split: str) -> Examples:
        """The images of one list, in its order.

        Raises:
            DataError: An unknown split; a root, list or image that is not there; a malformed line;
                a wrong label; an empty list. Names the list and the line.
        """
        check_split_name(split)
        folder = folder_below(self.root, self.task)
        name: str = getattr(self, split)
        return listed_examples(folder / name, name, folder, self.label_space())
