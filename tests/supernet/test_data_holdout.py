"""A split in two parts: nothing lost, nothing twice, every class in proportion."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from data_images import PREPROCESSING, write_classes
from small_networks import DIGITS, backbone_of, digits

from supernet import evaluate_model
from supernet.data import FolderSource, Split, StreamedSplit, fold, hold_out, load_split, n_held_out
from supernet.errors import DataError


@pytest.fixture(params=["tensor", "streamed"], scope="module")
def split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Twelve, eight and four images of three classes."""
    root = tmp_path_factory.mktemp("split")
    write_classes(root / "train", {"a": 12, "b": 8, "c": 4})
    (root / "val").mkdir()  # so that nothing is drawn from train
    cache = 2**20 if request.param == "tensor" else 0
    made = load_split(FolderSource(root), "train", PREPROCESSING, cache_bytes=cache)
    return dataclasses.replace(made, workers=0) if isinstance(made, StreamedSplit) else made


def everything(split: Split) -> list[tuple[bytes, int]]:
    images, labels = split.gather(torch.arange(len(split)))
    return [(i.numpy().tobytes(), int(k)) for i, k in zip(images, labels, strict=True)]


@pytest.mark.parametrize(("share", "counts"), [(0.25, [3, 2, 1]), (0.5, [6, 4, 2])])
def test_the_parts_are_the_split(split: Split, share: float, counts: list[int]) -> None:
    """In its order, each class in proportion, the same in every process, another with a seed."""
    seen, held_out = hold_out(split, share, seed=1)
    labels = [label for _, label in everything(held_out)]
    assert [labels.count(k) for k in range(3)] == counts
    assert len(seen) + len(held_out) == 24
    assert sorted(everything(seen) + everything(held_out)) == sorted(everything(split))
    order = everything(split)
    for part in (seen, held_out):
        positions = [order.index(each) for each in everything(part)]
        assert positions == sorted(positions)
        assert (part.name, part.class_names) == (split.name, split.class_names)
    assert everything(hold_out(split, share, seed=1)[1]) == everything(held_out)
    assert everything(hold_out(split, share, seed=2)[1]) != everything(held_out)
    assert len({split.fingerprint, seen.fingerprint, held_out.fingerprint}) == 3
    assert everything(pickle.loads(pickle.dumps(seen))) == everything(seen)


def test_batches_of_a_part_are_its_images(split: Split) -> None:
    seen, _ = hold_out(split, 0.25, seed=0)
    batches = list(seen.batches(5))
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 3]
    assert torch.equal(torch.cat([i for i, _ in batches]), seen.gather(torch.arange(18))[0])


def test_the_figures_of_the_parts_add_up_to_those_of_the_split() -> None:
    model, val = backbone_of(DIGITS), digits()[1]
    whole, *parts = (evaluate_model(model, s) for s in (val, *hold_out(val, 0.3, seed=0)))
    assert [p.n_images for p in parts] == [35, 15]
    assert sum(p.loss * p.n_images for p in parts) == pytest.approx(whole.loss * 50, abs=1e-4)
    assert round(sum(p.top1 * p.n_images for p in parts)) == round(whole.top1 * 50)


@pytest.mark.parametrize(("n", "share"), [(24, 0.01), (24, 0.99), (1, 0.5)])
def test_a_part_without_images_is_refused(n: int, share: float) -> None:
    with pytest.raises(DataError, match="both parts need at least one"):
        n_held_out(n, share)


@pytest.mark.parametrize("split", ["tensor"], indirect=True)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_folds_hold_each_image_of_all_splits_once(split: Split, n: int) -> None:
    """Each class in proportion, the folds' sizes apart by one at most, another draw with a seed."""
    train, val = hold_out(split, 0.25, seed=0)
    rests, folds = zip(*(fold((train, val), k, n, seed=1) for k in range(n)), strict=True)
    images = sorted(everything(split))
    assert sorted(each for part in folds for each in everything(part)) == images
    for rest, part in zip(rests, folds, strict=True):
        assert sorted(everything(rest) + everything(part)) == images
        assert (rest.name, part.name) == ("train", "val")
        labels = [label for _, label in everything(part)]
        for k, size in enumerate((12, 8, 4)):
            assert abs(labels.count(k) - size / n) <= 1
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert everything(fold((train, val), 0, n, seed=2)[1]) != everything(folds[0])
    assert len({part.fingerprint for part in (*rests, *folds)}) == (2 if n == 2 else 2 * n)


def test_folds_that_cannot_be_are_refused(split: Split) -> None:
    if isinstance(split, StreamedSplit):
        with pytest.raises(DataError, match="decoded"):
            fold((split,), 0, 2, seed=0)
        return
    single, _ = hold_out(split, 23 / 24, seed=0)
    with pytest.raises(DataError, match="without images"):
        fold((single,), 0, 2, seed=0)
