"""One contract over both kinds of split, and what only one of them promises."""

import gc
import hashlib
import pickle
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from data_images import PREPROCESSING, truncate, write_classes
from PIL import Image

from supernet.data import (
    FolderSource,
    Split,
    StreamedSplit,
    TensorSplit,
    load_split,
    pixel_fingerprint,
)
from supernet.errors import DataError

N = 11


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("splits")
    write_classes(root / "train", {"a": 4, "b": 4, "c": 3})
    return root


@pytest.fixture(params=["tensor", "streamed", "streamed by workers"])
def split(request: pytest.FixtureRequest, root: Path) -> Split:
    (root / "val").mkdir(exist_ok=True)  # so that nothing is drawn from train
    made = load_split(
        FolderSource(root),
        "train",
        PREPROCESSING,
        cache_bytes=2**20 if request.param == "tensor" else 0,
        decode_workers=2 if request.param.endswith("workers") else 0,
    )
    assert isinstance(made, TensorSplit if request.param == "tensor" else StreamedSplit)
    return made


@pytest.fixture(scope="module")
def images(root: Path) -> torch.Tensor:
    """What every split of `root` must give: decoded and normalised here, by PIL and timm alone."""
    transform = PREPROCESSING.transform()
    paths = sorted((root / "train").rglob("*.*"))
    return torch.stack([PREPROCESSING.normalise(transform(Image.open(p))) for p in paths])


LABELS = torch.tensor([0] * 4 + [1] * 4 + [2] * 3)


def test_it_says_what_it_is(split: Split) -> None:
    assert (split.name, len(split), split.num_classes) == ("train", N, 3)
    assert split.class_names == ("a", "b", "c")
    assert split.preprocessing == PREPROCESSING
    assert split.device == torch.device("cpu")
    assert len(bytes.fromhex(split.fingerprint)) == 32


def test_gather_gives_the_images_asked_for_in_that_order(
    split: Split, images: torch.Tensor
) -> None:
    indices = torch.tensor([10, 0, 3, 3])
    gathered, labels = split.gather(indices)
    assert gathered.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.equal(gathered, images[indices])
    assert labels.tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 4, N, 100])
def test_batches_are_the_split_in_order(
    split: Split, images: torch.Tensor, batch_size: int
) -> None:
    batches = list(split.batches(batch_size))
    sizes = [len(labels) for _, labels in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert torch.equal(torch.cat([x for x, _ in batches]), images)
    assert torch.equal(torch.cat([y for _, y in batches]), LABELS)


def test_gather_each_is_gather_of_each(split: Split) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).split(4)
    for (images, labels), indices in zip(split.gather_each(order), order, strict=True):
        expected, expected_labels = split.gather(indices)
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_reading_draws_nothing_from_the_global_generator(split: Split) -> None:
    """Else drop path would differ between a decoded and a streamed split of the same images."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(split.batches(4))
    split.gather(torch.tensor([1]))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_batch_holds_is_the_readers_own(split: Split, images: torch.Tensor) -> None:
    """Writing into a batch must not change the next one."""
    batch, _ = next(split.batches(3))
    batch.zero_()
    gathered, _ = split.gather(torch.tensor([0, 1]))
    assert torch.equal(gathered, images[:2])
    gathered.zero_()
    assert torch.equal(next(split.batches(3))[0], images[:3])


def test_a_batch_holds_at_least_one_image(split: Split) -> None:
    with pytest.raises(DataError, match="batch_size must be at least 1; got 0"):
        list(split.batches(0))


def test_to_gives_the_same_split(split: Split, images: torch.Tensor) -> None:
    moved = split.to("cpu")
    assert moved.fingerprint == split.fingerprint
    assert torch.equal(moved.gather(torch.arange(N))[0], images)


def test_it_travels_to_another_process(split: Split, images: torch.Tensor) -> None:
    there = pickle.loads(pickle.dumps(split))
    assert there.fingerprint == split.fingerprint
    assert torch.equal(torch.cat([x for x, _ in there.batches(5)]), images)


@pytest.mark.gpu
def test_batches_lie_on_the_device(split: Split, images: torch.Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    moved = split.to("cuda")
    gathered, labels = moved.gather(torch.arange(N))
    assert gathered.device.type == labels.device.type == "cuda"
    torch.testing.assert_close(gathered.cpu(), images)
    torch.testing.assert_close(torch.cat([x for x, _ in moved.batches(4)]).cpu(), images)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Read-only ones, as the object store of a cluster hands them out."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(5)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def over(images: object, labels: object, **changes: object) -> TensorSplit:
    fields = {"name": "val", "num_classes": 5, "class_names": None, "fingerprint": "f"} | changes
    return TensorSplit(
        images=images,  # type: ignore[arg-type]
        labels=labels,  # type: ignore[arg-type]
        preprocessing=PREPROCESSING,
        **fields,  # type: ignore[arg-type]
    )


def test_a_split_over_read_only_arrays_copies_nothing_and_warns_of_nothing() -> None:
    images, labels = arrays()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = over(images, labels)
    assert split.images.data_ptr() == images.ctypes.data
    assert split.labels.data_ptr() == labels.ctypes.data
    expected = PREPROCESSING.normalise(torch.from_numpy(images.copy()))
    assert torch.equal(split.gather(torch.arange(5))[0], expected)


@pytest.mark.slow
def test_a_split_keeps_its_arrays_alive_as_long_as_itself() -> None:
    images, labels = arrays()
    memory = weakref.ref(images)
    split = over(images, labels)
    del images, labels
    gc.collect()
    assert memory() is not None
    del split
    gc.collect()
    assert memory() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((5, 3, 8, 8), np.uint8)}, r"must be uint8 \(5, 3, 16, 16\); got"),
        ({"images": np.zeros((5, 3, 16, 16), np.float32)}, r"got torch\.float32"),
        ({"images": np.zeros((4, 3, 16, 16), np.uint8)}, r"got torch\.uint8 \(4, 3, 16, 16\)"),
        ({"labels": np.arange(5, dtype=np.int32)}, r"must be int64 \(n,\)"),
        ({"labels": np.arange(5) + 1}, "must be 0 to 4; got 1 to 5"),
        ({"labels": np.arange(5) - 1}, "must be 0 to 4; got -1 to 3"),
        ({"class_names": ("a", "b")}, "5 classes, but 2 class names"),
        ({"name": "validation"}, "one of train, val, test; got 'validation'"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(
    changes: dict[str, object], message: str
) -> None:
    images, labels = arrays()
    with pytest.raises(DataError, match=message):
        over(**({"images": images, "labels": labels} | changes))  # type: ignore[arg-type]


def test_the_pixel_fingerprint_is_sha256_of_shape_pixels_and_labels() -> None:
    """Spelt out: a study compares it with one that was made elsewhere."""
    images, labels = (torch.from_numpy(a.copy()) for a in arrays())
    plain = b"(5, 3, 16, 16)\n" + images.numpy().tobytes() + labels.numpy().astype("<i8").tobytes()
    assert pixel_fingerprint(images, labels) == hashlib.sha256(plain).hexdigest()


def test_fingerprints_tell_splits_apart(root: Path, tmp_path: Path) -> None:
    """Decoded: one pixel or label. Streamed: a path, a size or a label."""
    images, labels = (torch.from_numpy(a.copy()) for a in arrays())
    other_images, other_labels = images.clone(), labels.clone()
    other_images[4, 2, 15, 15] ^= 1
    other_labels[4] = 0
    swapped = torch.tensor([1, 0, 2, 3, 4])
    decoded = {
        pixel_fingerprint(images, labels),
        pixel_fingerprint(other_images, labels),
        pixel_fingerprint(images, other_labels),
        pixel_fingerprint(images[swapped], labels[swapped]),
    }
    assert len(decoded) == 4

    def listed(folder: Path) -> str:
        (folder / "val").mkdir(exist_ok=True)
        return load_split(FolderSource(folder), "train", PREPROCESSING, cache_bytes=0).fingerprint

    write_classes(tmp_path / "train", {"a": 4, "b": 4, "c": 3})
    seen = [listed(root), listed(tmp_path)]
    assert seen[0] == seen[1]  # the same files below another root
    with (tmp_path / "train/a/000.png").open("ab") as file:
        file.write(b"\0")
    seen.append(listed(tmp_path))
    (tmp_path / "train/a/000.png").rename(tmp_path / "train/a/renamed.png")
    seen.append(listed(tmp_path))
    (tmp_path / "train/a/renamed.png").rename(tmp_path / "train/b/renamed.png")
    seen.append(listed(tmp_path))
    assert len(set(seen)) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_image_that_does_not_decode_is_one_clear_line(
    tmp_path: Path, workers: int
) -> None:
    """Also from a loader's worker, whose traceback is not what the user needs."""
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    (tmp_path / "val").mkdir()
    broken = truncate(tmp_path / "train/b/001.jpg")
    split = load_split(
        FolderSource(tmp_path), "train", PREPROCESSING, cache_bytes=0, decode_workers=workers
    )
    for read in (lambda: list(split.batches(2)), lambda: split.gather(torch.tensor([4]))):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value).startswith(f"{broken}: the image does not decode: ")
        assert "\n" not in str(caught.value)


def test_streaming_needs_a_sensible_number_of_workers(root: Path) -> None:
    with pytest.raises(DataError, match="workers must not be negative; got -1"):
        load_split(FolderSource(root), "train", PREPROCESSING, cache_bytes=0, decode_workers=-1)
