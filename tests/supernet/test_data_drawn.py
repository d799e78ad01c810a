"""Drawn tasks: deterministic, of the form that VTAB has, and not to be told from the mean grey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from supernet.data import DRAWN_TASKS, PRETRAINING_TASK, DrawnSource
from supernet.errors import DataError

TASKS = sorted(DRAWN_TASKS)


def pixels_of(source: DrawnSource, split: str) -> np.ndarray:
    images = source.examples(split).images
    return np.stack([np.asarray(images.open(i)) for i in range(len(images))])


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_draws_the_same_images(task: str) -> None:
    source = DrawnSource(task, n_train=30, n_val=20, n_test=0)
    assert np.array_equal(pixels_of(source, "train"), pixels_of(source, "train"))
    other = DrawnSource(task, n_train=30, n_val=20, n_test=0, seed=1)
    assert not np.array_equal(pixels_of(source, "train"), pixels_of(other, "train"))


@pytest.mark.parametrize("task", TASKS)
def test_no_image_is_in_two_splits(task: str) -> None:
    source = DrawnSource(task, n_train=100, n_val=100, n_test=100)
    images = np.concatenate([pixels_of(source, split) for split in ("train", "val", "test")])
    assert len(np.unique(images.reshape(300, -1), axis=0)) == 300


@pytest.mark.parametrize("task", TASKS)
def test_every_class_is_drawn(task: str) -> None:
    examples = DrawnSource(task, n_train=800).examples("train")
    found, counts = np.unique(examples.labels, return_counts=True)
    assert len(found) == examples.label_space.num_classes == len(DRAWN_TASKS[task].classes)
    assert counts.min() > 0.5 * 800 / len(found)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(set(TASKS) - {PRETRAINING_TASK}))
def test_pixels_alone_do_not_give_the_class_away(task: str) -> None:
    """A linear classifier on pixels stays at least 15 points below what is possible, 1."""
    source = DrawnSource(task, n_train=800, n_test=1000)
    train, test = pixels_of(source, "train"), pixels_of(source, "test")
    model = LogisticRegression(C=1e-4, max_iter=300)
    model.fit(train.reshape(800, -1) / 255.0 - 0.5, source.examples("train").labels)
    top1 = model.score(test.reshape(1000, -1) / 255.0 - 0.5, source.examples("test").labels)
    assert top1 < 0.85


@settings(max_examples=20)
@given(st.sampled_from(TASKS), st.integers(0, 2**31 - 1), st.integers(1, 40))
def test_images_are_grey_bytes_of_twenty_by_twenty(task: str, seed: int, n: int) -> None:
    examples = DrawnSource(task, n_train=n, n_val=0, n_test=0, seed=seed).examples("train")
    image = examples.images.open(n - 1)  # type: ignore[union-attr]
    assert (image.mode, image.size, len(examples.labels)) == ("L", (20, 20), n)
    assert np.asarray(image).std() > 5, "something is drawn"


def test_a_large_split_begins_as_its_chunks_do() -> None:
    """Chunks bound the memory of drawing; more than one of them must not repeat images."""
    images = pixels_of(DrawnSource("count", n_train=2100), "train")
    assert len(np.unique(images.reshape(2100, -1), axis=0)) == 2100


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match=r"no drawn task 'counting'; accepted: .*count"):
        DrawnSource("counting")
    with pytest.raises(DataError, match="negative"):
        DrawnSource("count", n_val=-1)
    with pytest.raises(DataError, match="val split of the drawn task 'count' is empty"):
        DrawnSource("count", n_val=0).examples("val")
    with pytest.raises(DataError, match="split"):
        DrawnSource("count").examples("training")
