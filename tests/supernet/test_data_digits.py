"""The built-in digits: real images, and splits that do not touch."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from supernet.data import DigitsSource, Examples
from supernet.errors import DataError


def contents(examples: Examples) -> list[bytes]:
    opened = (examples.images.open(i) for i in range(len(examples.labels)))  # type: ignore[union-attr]
    return [image.tobytes() for image in opened]


def identities(examples: Examples) -> set[str]:
    return {examples.images.identity(i) for i in range(len(examples.labels))}


def test_the_default_is_vtabs_protocol_on_five_to_nine() -> None:
    source = DigitsSource()
    parts = {split: source.examples(split) for split in ("train", "val", "test")}
    assert {split: len(e.labels) for split, e in parts.items()} == {
        "train": 100,
        "val": 200,
        "test": 596,
    }
    assert np.bincount(parts["train"].labels).tolist() == [20] * 5
    assert np.bincount(parts["val"].labels).tolist() == [40] * 5


def test_no_image_is_in_two_splits_and_none_is_lost() -> None:
    source = DigitsSource()
    parts = [identities(source.examples(split)) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 896


def test_images_are_scikit_learns_with_labels_by_position() -> None:
    data = load_digits()
    examples = DigitsSource(classes=(9, 3), n_train=None, n_val=0).examples("train")
    wanted = [
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), (9, 3).index(digit))
        for image, digit in zip(data.images, data.target, strict=True)
        if digit in (9, 3)
    ]
    assert list(zip(contents(examples), examples.labels, strict=True)) == wanted
    assert examples.label_space.class_names == ("9", "3")
    assert examples.images.open(0).mode == "L"  # type: ignore[union-attr]
    assert max(max(c) for c in contents(examples)) == 255


def test_pretraining_takes_all_images_of_other_classes() -> None:
    source = DigitsSource(classes=(0, 1, 2, 3, 4), n_train=None, n_val=100)
    assert len(source.examples("train").labels) == 801
    with pytest.raises(DataError, match="the test split of the digits is empty"):
        source.examples("test")


def test_a_split_of_no_images_is_an_error_when_asked_for() -> None:
    source = DigitsSource(n_train=None, n_val=0)
    assert len(source.examples("train").labels) == 896
    with pytest.raises(DataError, match="the val split of the digits is empty"):
        source.examples("val")


def test_the_draw_is_seeded() -> None:
    first, again, other = (DigitsSource(seed=seed).examples("train") for seed in (0, 0, 1))
    assert contents(first) == contents(again) != contents(other)


@pytest.mark.parametrize("n", [7, 101])
def test_numbers_that_do_not_divide_differ_by_one_between_classes(n: int) -> None:
    counts = np.bincount(DigitsSource(n_train=n).examples("train").labels)
    assert counts.sum() == n
    assert counts.max() - counts.min() == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ()}, "different digits"),
        ({"classes": (1, 1)}, "different digits"),
        ({"classes": (9, 10)}, "different digits"),
        ({"n_val": -1}, "must not be negative"),
        ({"n_train": 800, "n_val": 97}, "have 896 images; got n_train=800 and n_val=97"),
    ],
)
def test_impossible_wishes_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        DigitsSource(**fields).examples("train")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="one of train, val, test; got 'validation'"):
        DigitsSource().examples("validation")
