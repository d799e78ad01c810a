"""The section [data]: one kind of table for each source of images."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field

from glora_search.study.section_types import (
    AbsolutePath,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Section,
    Seed,
)


class _Data(Section):
    # The backbone's own timm data configuration decides; each key here overrides one of its
    # entries.
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos"] | None = None
    mean: list[float] | None = None
    std: list[Positive] | None = None
    crop_pct: Positive | None = None
    crop_mode: Literal["center", "squash", "border"] | None = None
    cache_gb: NotNegative = 4.0
    decode_workers: CountOrZero = 2

    def preprocessing_overrides(self) -> dict[str, Any]:
        """The entries of the backbone's data configuration that the file overrides."""
        names = ("interpolation", "mean", "std", "crop_pct", "crop_mode")
        given = {name: getattr(self, name) for name in names}
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if value is not None
        }


SHARED_KEYS: Final = tuple(_Data.model_fields)
"""The keys that all sources have: how images are prepared, cached and decoded."""


class DigitsData(_Data):
    """The 1,797 handwritten digits that scikit-learn ships, 8 x 8, one channel."""

    source: Literal["digits"]
    classes: list[Annotated[int, Ge(0), Le(9)]] = Field(default=[5, 6, 7, 8, 9])
    n_train: Count | Literal["all"] = 100
    n_val: CountOrZero = 200
    seed: Seed = 0


class DrawnData(_Data):
    """A task that is drawn on demand, 20 x 20, one channel; see `supernet.data.DRAWN_TASKS`."""

    source: Literal["drawn"]
    task: str
    n_train: Count = 800
    n_val: CountOrZero = 200
    n_test: CountOrZero = 5000
    seed: Seed = 0


class VTABData(_Data):
    """VTAB-1k in its exchange format: ROOT/<task>/{train800,val200,test}.txt beside the images."""

    source: Literal["vtab"]
    root: AbsolutePath
    task: str
    train: str = "train800.txt"
    val: str = "val200.txt"
    test: str = "test.txt"
    num_classes: Count | None = None


class FolderData(_Data):
    """A folder a class below train/, val/ and test/; without val/ a part of train/ is taken."""

    source: Literal["folder"]
    root: AbsolutePath
    train: str = "train"
    val: str = "val"
    test: str = "test"
    val_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    seed: Seed = 0


class TimmData(_Data):
    """Anything that timm.data.create_dataset reads: torchvision, Hugging Face, webdataset, tar."""

    source: Literal["timm"]
    name: str
    root: AbsolutePath | None = None
    train_split: str = "train"
    val_split: str | None = None
    test_split: str = "test"
    n_train: Count | None = None
    n_val: Count | None = None
    download: bool = False
    seed: Seed = 0


class FewShotData(_Data):
    """Few images a class of fine-grained classes: ROOT/<data set>/annotations/*.list."""

    source: Literal["few-shot"]
    root: AbsolutePath
    dataset: str
    shots: Count = 16
    seed: Seed = 0


class DomainData(_Data):
    """Train on few images of each ImageNet class, test on another domain."""

    source: Literal["imagenet-domains"]
    root: AbsolutePath
    domain: str
    shots: Count = 16
    seed: Seed = 0
    val: str = "unofficial_val_list_4_shot16seed0"
    mask_classes: bool = True


Data = DigitsData | DrawnData | VTABData | FolderData | TimmData | FewShotData | DomainData

DataSection = Annotated[Data, Field(discriminator="source")]

SOURCES: Final = frozenset(
    name
    for section in get_args(Data)
    for name in get_args(section.model_fields["source"].annotation)
)
"""What `source` may be."""
