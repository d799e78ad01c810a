"""List files: lines `relative/path label`, and the images and labels that they name."""

from __future__ import annotations

import re
from pathlib import Path

from supernet.data.examples import Examples, LabelSpace
from supernet.data.files import FileImages, stays_below
from supernet.errors import DataError


def listed_examples(list_file: Path, name: str, images: Path, space: LabelSpace) -> Examples:
    """The images of one list, in its order.

    Args:
        list_file: The list.
        name: What errors call it.
        images: The folder to which its paths are relative.
        space: The classes.

    Raises:
        DataError: The list or an image is not there, the list is empty, a line is malformed, or a
            label is no class. Names the list and the line.
    """
    files, labels, lines = read_list(list_file, name)
    return Examples(FileImages(images, tuple(files), name, tuple(lines)), tuple(labels), space)


def read_list(path: Path, name: str) -> tuple[list[str], list[int], list[int]]:
    """Relative paths, labels, and the line of each, counted from 1.

    Blank lines are passed over. The label is what follows the last space of a line, so that a path
    may hold spaces. `name` is what errors call the list.

    Raises:
        DataError: The list is not there, is no text or names no image, or a line is malformed.
    """
    if not path.is_file():
        raise DataError(f"the list {name} is not there: no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        number = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{name}, line {number}: not UTF-8 text: {error}") from error
    files: list[str] = []
    labels: list[int] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        match line.rsplit(maxsplit=1):
            case [file, label]:
                file = file.strip()
            case _:
                raise DataError(f"{where}: expected 'relative/path label'; got {line.strip()!r}")
        if not re.fullmatch(r"[+-]?[0-9]+", label):
            raise DataError(f"{where}: the label must be an integer; got {label!r}")
        if not stays_below(file):
            raise DataError(f"{where}: the path must be below the images' folder; got {file!r}")
        files.append(file)
        labels.append(int(label))
        lines.append(number)
    if not files:
        raise DataError(f"the list {name} is empty: {path} names no image")
    return files, labels, lines
