"""Images that are files below one folder, and the checks that every source of files shares."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from supernet.errors import DataError

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files below one folder.

    Args:
        root: The folder.
        files: Relative paths with forward slashes.
        list_name: The list file that names them, if one does.
        lines: For each file its line in that list, counted from 1.

    Raises:
        DataError: A file is not there; names it, its line, and how many more are missing.
    """

    root: Path
    files: tuple[str, ...]
    list_name: str | None = None
    lines: tuple[int, ...] = ()
    _sizes: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = np.full(len(self.files), -1, dtype=np.int64)
        for index, name in enumerate(self.files):
            path = self.root / name
            if path.is_file():
                sizes[index] = path.stat().st_size
        missing = np.flatnonzero(sizes < 0)
        if missing.size:
            more = f" (and {missing.size - 1} more of its files)" if missing.size > 1 else ""
            raise DataError(
                f"{self.describe(int(missing[0]))}: no such file below {self.root}{more}"
            )
        object.__setattr__(self, "_sizes", sizes)

    def __len__(self) -> int:
        return len(self.files)

    def describe(self, index: int) -> str:
        """The path, after the list and the line if a list names it."""
        if self.list_name is None:
            return str(self.root / self.files[index])
        return f"{self.list_name}, line {self.lines[index]}: {self.files[index]}"

    def identity(self, index: int) -> str:
        """Relative path and size in bytes."""
        return f"{self.files[index]}\0{self._sizes[index]}"

    def open(self, index: int) -> Image.Image:
        """The image, decoded; the file is closed again."""
        with Image.open(self.root / self.files[index]) as image:
            image.load()
            return image


def check_root(root: str | Path) -> Path:
    """`root` as a Path; raises DataError unless it is a folder."""
    root = Path(root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "is not there"
        raise DataError(f"the data's root {root} {what}; give the folder that holds the data set")
    return root


def folder_below(root: str | Path, *names: str) -> Path:
    """The first of the folders `names` below `root` that is there.

    Raises:
        DataError: `root` is no folder, or has none of these; says which it has.
    """
    root = check_root(root)
    for name in names:
        if (root / name).is_dir():
            return root / name
    found = sorted(p.name for p in root.iterdir() if p.is_dir())
    raise DataError(
        f"no folder {' or '.join(map(repr, names))} below {root}; its folders are "
        f"{', '.join(found) or 'none'}"
    )


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """Files below a folder, at any depth, that are images by their extension; sorted."""
    found: list[Path] = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in EXTENSIONS)


def stays_below(relative: str) -> bool:
    """Whether a relative path names something below its root; links may lead elsewhere."""
    path = PurePosixPath(relative.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def check_distinct(places: Sequence[tuple[str, str]]) -> None:
    """Raise DataError where two splits are given the same place, or one within another."""
    for (split, place), (other, elsewhere) in permutations(places, 2):
        path, second = PurePosixPath(place), PurePosixPath(elsewhere)
        if path == second or path in second.parents:
            raise DataError(
                f"{split} is {place!r} and {other} is {elsewhere!r}; each split needs images of "
                f"its own"
            )
