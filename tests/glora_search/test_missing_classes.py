"""A split that lacks a class: told at launch, in the export and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study
from PIL import Image

from glora_search import launch
from glora_search.operations import write_report
from glora_search.recording import Database
from glora_search.stages.progress import Silent
from supernet.errors import DataError


class Notes(Silent):
    """Remembers the lines that stay."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def write_split(folder: Path, counts: dict[str, int]) -> None:
    """Grey images of 8 by 8 pixels, all different, in class folders."""
    draws = np.random.default_rng(len(folder.name))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = draws.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")


def study_in(folder: Path, source: str) -> Any:
    """Its images lie in `folder/images`."""
    data: dict[str, Any] = {"source": source, "root": str(folder / "images")}
    if source == "timm":
        data |= {"name": "folder", "val_split": "val"}
    table = tiny_study.study_table(folder, supernet={"epochs": 1}, search={"generations": 0})
    table["data"] = data
    return tiny_study.parse_study(table, origin="a study of folders")


@pytest.mark.slow
def test_a_class_that_val_or_test_lacks_is_warned_of(tmp_path: Path) -> None:
    images, notes = tmp_path / "images", Notes()
    write_split(images / "train", {"cat": 4, "dog": 4, "eel": 4})
    write_split(images / "val", {"cat": 3})
    write_split(images / "test", {"cat": 2, "eel": 2})
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    result = launch(study_in(tmp_path, "folder"), storage=storage, progress=notes)
    lines = [line for line in notes.lines if line.startswith("warning")]
    assert lines == [
        "warning: the validation split has no image of 2 classes of the training split: dog, eel",
        "warning: the test split has no image of 1 class of the training split: dog",
    ]
    with Database.open(storage, create=False) as database:
        attributes = database.open_study("tiny").attributes
    assert attributes["missing_in_val"] == ["dog", "eel"]
    assert attributes["export"]["missing_in_test"] == ["dog"]
    subnet = json.loads((result.export.directory / "subnet.json").read_text())
    assert subnet["missing_in_test"] == ["dog"]
    write_report("tiny", tmp_path / "report.html", storage=storage)
    page = (tmp_path / "report.html").read_text()
    assert "validation split has no image of 2 classes of the training split (dog, eel)" in page
    assert "test split has no image of 1 class of the training split (dog)" in page


@pytest.mark.parametrize("source", ["folder", "timm"])
def test_a_class_that_only_test_has_ends_the_launch_before_it_trains(
    tmp_path: Path, source: str
) -> None:
    images = tmp_path / "images"
    write_split(images / "train", {"cat": 4, "dog": 4})
    write_split(images / "val", {"cat": 1, "dog": 1})
    write_split(images / "test", {"cat": 1, "zebra": 1, "fish": 1})
    with pytest.raises(DataError, match="does not have: fish, zebra"):
        launch(study_in(tmp_path, source), storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert not (tmp_path / "runs").exists()
