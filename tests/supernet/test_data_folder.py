"""Class folders: labels by sorted names, a stratified val where there is none, and strictness."""

from pathlib import Path

import numpy as np
import pytest
from data_images import PREPROCESSING, truncate, write_classes, write_image

from supernet.data import Examples, FolderSource, load_split, missing_classes
from supernet.errors import DataError

COUNTS = {"cat": 10, "Bird": 5, "dog": 15}  # sorted: Bird, cat, dog


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_classes(tmp_path / "train", COUNTS)
    write_classes(tmp_path / "test", {"cat": 2, "dog": 3}, seed=100)
    return tmp_path


def files(examples: Examples) -> list[str]:
    return [examples.images.identity(i).split("\0")[0] for i in range(len(examples.labels))]


def test_labels_count_the_sorted_classes_of_train(root: Path) -> None:
    """Also in a split that lacks a class."""
    write_classes(root / "val", {"dog": 1, "cat": 1}, seed=200)
    source = FolderSource(root)
    assert source.label_space().class_names == ("Bird", "cat", "dog")
    assert source.examples("train").labels == (0,) * 5 + (1,) * 10 + (2,) * 15
    assert source.examples("val").labels == (1, 2)
    assert source.examples("test").labels == (1, 1, 2, 2, 2)
    assert files(source.examples("val")) == ["val/cat/000.png", "val/dog/000.png"]


def test_val_is_taken_out_of_train_in_proportion(root: Path) -> None:
    source = FolderSource(root, val_fraction=0.2)
    train, val = source.examples("train"), source.examples("val")
    assert np.bincount(val.labels).tolist() == [1, 2, 3]
    assert np.bincount(train.labels).tolist() == [4, 8, 12]
    assert not set(files(train)) & set(files(val))
    assert set(files(train)) | set(files(val)) == {
        p.relative_to(root).as_posix() for p in (root / "train").rglob("*.*")
    }


def test_the_draw_depends_on_the_seed_alone(root: Path) -> None:
    val = files(FolderSource(root).examples("val"))
    assert files(FolderSource(root).examples("val")) == val
    assert files(FolderSource(root, seed=1).examples("val")) != val


def test_every_class_keeps_a_training_image(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 1, "b": 2, "c": 9})
    source = FolderSource(tmp_path, val_fraction=0.9)
    assert np.bincount(source.examples("train").labels).tolist() == [1, 1, 1]
    assert np.bincount(source.examples("val").labels).tolist() == [0, 1, 8]


def test_nothing_can_be_drawn_from_one_image_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 1, "b": 1})
    with pytest.raises(DataError, match="one image a class, so none can be taken for val"):
        FolderSource(tmp_path).examples("val")


def test_images_may_lie_deeper_and_other_files_beside(root: Path) -> None:
    write_image(root / "train/cat/more/deep.PNG", seed=1)
    (root / "train/cat/notes.txt").write_text("no image")
    (root / "train/cat/._000.png").write_bytes(b"what a file manager leaves")
    (root / "train/.cache/x").mkdir(parents=True)
    write_classes(root / "val", {"cat": 1}, seed=200)
    train = FolderSource(root).examples("train")
    assert np.bincount(train.labels).tolist() == [5, 11, 15]
    assert "train/cat/more/deep.PNG" in files(train)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_that_train_lacks_is_an_error(root: Path, split: str) -> None:
    """At launch, which reads train, and not only at the end, which reads test."""
    write_classes(root / "test", {"fish": 1, "eel": 1})
    message = r"test has classes that 'train' does not have: eel, fish; its classes are Bird"
    with pytest.raises(DataError, match=message):
        FolderSource(root).examples(split)


def test_classes_that_a_split_lacks_are_named(root: Path) -> None:
    train, test = (
        load_split(FolderSource(root), name, PREPROCESSING) for name in ("train", "test")
    )
    assert missing_classes(train, test) == ("Bird",)
    assert missing_classes(train, train) == ()
    streamed = load_split(FolderSource(root), "test", PREPROCESSING, cache_bytes=1)
    assert missing_classes(train, streamed) == ("Bird",)


def test_an_image_outside_of_the_classes_is_an_error(root: Path) -> None:
    write_image(root / "train/stray.png", seed=1)
    with pytest.raises(DataError, match=r"train/stray\.png lies in no class folder"):
        FolderSource(root).examples("train")


def test_a_class_without_training_images_is_an_error(root: Path) -> None:
    (root / "train/eel").mkdir()
    with pytest.raises(DataError, match="class 'eel' has no image in"):
        FolderSource(root).examples("train")


def test_what_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder 'testing' is not there"):
        FolderSource(root, test="testing").examples("test")
    with pytest.raises(DataError, match="nowhere is not there"):
        FolderSource(root / "nowhere").examples("train")
    (root / "val").mkdir()
    with pytest.raises(DataError, match=r"no image below .*val; accepted are files named \.bmp"):
        FolderSource(root).examples("val")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="has no folder; expected one for each class"):
        FolderSource(root, train="empty").label_space()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"val": "test"}, "val is 'test' and test is 'test'"),
        ({"test": "train/held-out"}, "train is 'train' and test is 'train/held-out'"),
        ({"train": "."}, "a split is a folder below the data's root"),
        ({"test": "../test"}, "a split is a folder below the data's root"),
        ({"val_fraction": 0.0}, "val_fraction must be above 0 and below 1"),
        ({"val_fraction": 1.0}, "val_fraction must be above 0 and below 1"),
    ],
)
def test_wrong_fields_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FolderSource("nowhere", **fields)


def test_an_image_that_does_not_decode_is_named(root: Path) -> None:
    broken = truncate(root / "test/dog/001.jpg")
    with pytest.raises(DataError, match=rf"^{broken}: the image does not decode"):
        load_split(FolderSource(root), "test", PREPROCESSING)
