"""Loading: what fits is decoded once, progress is told, and search has no way to the test split."""

import inspect
import logging
from pathlib import Path

import pytest
import torch
from data_images import PREPROCESSING, truncate, write_classes, write_image

from supernet.data import (
    DigitsSource,
    FolderSource,
    Preprocessing,
    StreamedSplit,
    TensorSplit,
    VTABSource,
    load_search_splits,
    load_split,
    load_test_split,
    pixel_fingerprint,
)
from supernet.data.examples import Examples
from supernet.errors import DataError

GREY = Preprocessing(
    input_size=(1, 8, 8),
    interpolation="bicubic",
    mean=(0.5,),
    std=(0.5,),
    crop_pct=1.0,
    crop_mode="squash",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 20), ("val", 3), ("test", 2)):
        write_classes(tmp_path / split, {"a": count, "b": count}, seed=1000 * count)
    return tmp_path


def test_the_digits_of_the_demo() -> None:
    train, val = load_search_splits(DigitsSource(), GREY)
    test = load_test_split(DigitsSource(), GREY)
    assert [(s.name, len(s)) for s in (train, val, test)] == [
        ("train", 100),
        ("val", 200),
        ("test", 596),
    ]
    images, labels = train.gather(torch.arange(100))
    assert images.shape == (100, 1, 8, 8)
    assert images.min() == -1
    assert images.max() == 1
    assert set(labels.tolist()) == {0, 1, 2, 3, 4}
    assert test.class_names == ("5", "6", "7", "8", "9")


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_threads_change_neither_order_nor_pixels(root: Path, workers: int) -> None:
    made = load_split(FolderSource(root), "train", PREPROCESSING, decode_workers=workers)
    alone = load_split(FolderSource(root), "train", PREPROCESSING, decode_workers=1)
    assert isinstance(made, TensorSplit)
    assert isinstance(alone, TensorSplit)
    assert torch.equal(made.images, alone.images)
    assert made.fingerprint == alone.fingerprint == pixel_fingerprint(made.images, made.labels)


def test_what_does_not_fit_is_streamed(root: Path) -> None:
    """40 images of 3 x 16 x 16 bytes: one byte less than that is too little."""
    needed = 40 * 3 * 16 * 16
    fits = load_split(FolderSource(root), "train", PREPROCESSING, cache_bytes=needed)
    assert isinstance(fits, TensorSplit)
    assert fits.images.nbytes == needed
    streamed = load_split(FolderSource(root), "train", PREPROCESSING, cache_bytes=needed - 1)
    assert isinstance(streamed, StreamedSplit)


def test_progress_counts_every_image_of_each_split(root: Path) -> None:
    told: list[tuple[str, int, int]] = []
    load_search_splits(
        FolderSource(root), PREPROCESSING, on_progress=lambda *step: told.append(step)
    )
    assert told == [("train", i, 40) for i in range(1, 41)] + [("val", i, 6) for i in range(1, 7)]


class Watched:
    """A real source that notes which splits it is asked for."""

    def __init__(self, source: FolderSource) -> None:
        self._source = source
        self.label_space = source.label_space
        self.asked: list[str] = []

    def examples(self, split: str) -> Examples:
        self.asked.append(split)
        return self._source.examples(split)


def test_search_never_asks_for_the_test_split(root: Path) -> None:
    """Nor could a caller make it: the door takes no name of a split."""
    watched = Watched(FolderSource(root))
    splits = load_search_splits(watched, PREPROCESSING)
    assert watched.asked == ["train", "val"]
    assert [split.name for split in splits] == ["train", "val"]
    parameters = inspect.signature(load_search_splits).parameters
    assert set(parameters) == {
        "source",
        "preprocessing",
        "cache_bytes",
        "decode_workers",
        "on_progress",
    }
    assert load_test_split(watched, PREPROCESSING).name == "test"
    assert watched.asked == ["train", "val", "test"]


def test_search_does_without_the_test_split(root: Path) -> None:
    """Its images may be broken or not there at all."""
    for path in sorted((root / "test").rglob("*.*")):
        truncate(path)
    load_search_splits(FolderSource(root), PREPROCESSING)
    with pytest.raises(DataError, match=r"test/a/000\.png: the image does not decode"):
        load_test_split(FolderSource(root), PREPROCESSING)
    with pytest.raises(DataError, match="the folder 'later' is not there"):
        load_test_split(FolderSource(root, test="later"), PREPROCESSING)


def test_val_images_that_are_trained_on_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`train800val200.txt` beside `val200.txt` is a list that people have."""
    folder = tmp_path / "kitti"
    for i in range(4):
        write_image(folder / f"{i}.png", seed=i)
    (folder / "val200.txt").write_text("2.png 1\n3.png 0\n")
    (folder / "train800.txt").write_text("0.png 1\n1.png 0\n")
    (folder / "train800val200.txt").write_text("0.png 1\n1.png 0\n2.png 1\n")
    with caplog.at_level(logging.WARNING):
        load_search_splits(VTABSource(tmp_path, "kitti"), PREPROCESSING)
        assert not caplog.records
        load_search_splits(VTABSource(tmp_path, "kitti", train="train800val200.txt"), PREPROCESSING)
    assert caplog.messages == [
        "1 of the 2 val images are train images as well, the first is val200.txt, line 1: 2.png"
    ]


def test_an_unknown_split_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="one of train, val, test; got 'trian'"):
        load_split(FolderSource(root), "trian", PREPROCESSING)
