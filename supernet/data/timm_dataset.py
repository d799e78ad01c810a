"""The arguments of timm's `create_dataset` for one split, and which images a split's name means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supernet.errors import DataError

PACKAGES = {
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}
_FOLDER_NAMES = ("", "folder", "torch/folder", "torch/image_folder")
_TWO_SPLITS = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
_SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))


@dataclass(frozen=True)
class TimmDataset:
    """One split of a data set; see `TimmSource` for the fields.

    Raises:
        DataError: A name that timm does not read.
    """

    name: str
    root: str | None
    split: str
    download: bool = False
    input_key: str | None = None
    target_key: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("torch", "folder", *PACKAGES):
            raise DataError(
                f"timm reads no data set {self.name!r}; accepted are torch/<name>, "
                f"{', '.join(f'{prefix}/<name>' for prefix in PACKAGES)}, or folder"
            )

    def __str__(self) -> str:
        return f"{self.name or 'folder'}, split {self.split!r}"

    @property
    def kind(self) -> str:
        """`folder`, or the prefix of the name."""
        if self.name.lower() in _FOLDER_NAMES:
            return "folder"
        return self.name.partition("/")[0].lower()

    def may_overlap(self, other: TimmDataset) -> bool:
        """Whether another split of the same data set may hold images of this one."""
        if self.kind == "folder":
            entry = self._entry()
            return entry is not None and entry == other._entry()
        if self.kind == "torch":
            return self._torch_split() == other._torch_split()
        if self.split == other.split or "all" in (self.split, other.split):
            return True
        mine, theirs = _parts(self.split), _parts(other.split)
        # two different slices of one split are taken to be apart
        return any(not (mine[part] and theirs[part]) for part in mine.keys() & theirs.keys())

    def _torch_split(self) -> str:
        """The split that torchvision reads; of two splits, all but train is test."""
        if self.name.lower().rpartition("/")[2] in _TWO_SPLITS:
            return "train" if self.split in _SYNONYMS[0] else "test"
        return next((names[0] for names in _SYNONYMS if self.split in names), self.split)

    def _entry(self) -> Path | None:
        """The folder or tar file of this split; unlike timm's search, never all of root."""
        if self.root is None:
            return None
        root = Path(self.root)
        if root.is_file():
            return root
        synonyms: tuple[str, ...] = next((names for names in _SYNONYMS if self.split in names), ())
        places = [root / name for name in (self.split, *synonyms) if name]
        return next((place.resolve() for place in places if place.exists()), None)

    def class_folders(self) -> list[str]:
        """Names of the class folders of a split whose classes are folders; none of other kinds."""
        entry = self._entry() if self.kind == "folder" else None
        if entry is None or not entry.is_dir():
            return []
        return sorted(p.name for p in entry.iterdir() if p.is_dir() and not p.name.startswith("."))

    def checked_root(self) -> str | None:
        """The root to open it from: for a folder, that of the split itself.

        Raises:
            DataError: It is not there.
        """
        root = self.root
        if self.kind in ("hfds", "hfids", "tfds") or _is_remote(root):
            return root  # a cache folder, which need not exist, or no path of this machine
        if root is None:
            raise DataError(f"{self} needs a root: the folder that holds the data set")
        if not Path(root).exists() and (self.kind == "folder" or not self.download):
            raise DataError(f"the root of {self} is not there: {root}")
        if self.kind == "folder":
            entry = self._entry()
            if entry is None:
                found = sorted(p.name for p in Path(root).iterdir())
                raise DataError(f"{self}: not in {root}, which has {', '.join(found) or 'nothing'}")
            return str(entry)
        return root


def _is_remote(root: str | None) -> bool:
    return root is not None and ("://" in root or root.startswith("pipe:"))


def _parts(split: str) -> dict[str, bool]:
    """The parts of a split such as `train[:80%]+extra`, and whether each is only a slice."""
    split = split.partition("|")[0]  # what follows is a count of samples
    return {part.partition("[")[0].strip(): "[" in part for part in split.split("+")}
