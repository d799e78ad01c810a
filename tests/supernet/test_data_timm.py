"""Sources that timm reads, each from real files: torchvision, folders, tar files, webdataset."""

import gzip
import io
import json
import logging
import pickle
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_images import PREPROCESSING, pixels, truncate, write_classes
from PIL import Image

from supernet.data import (
    Examples,
    Split,
    StreamedSplit,
    TensorSplit,
    TimmSource,
    load_search_splits,
    load_split,
    load_test_split,
)
from supernet.errors import DataError

TRAIN = {"cat": 6, "dog": 9, "eel": 3}
TEST = {"cat": 2, "eel": 4}  # without dogs, so a reader of its own would count eels as 1


def in_folder(root: Path) -> TimmSource:
    write_classes(root / "train", TRAIN)
    write_classes(root / "test", TEST, seed=500)
    return TimmSource(name="folder", root=root, n_val=6)


def in_torchvisions_folder(root: Path) -> TimmSource:
    in_folder(root)
    return TimmSource(name="torch/image_folder", root=root, n_val=6)


def in_tar(root: Path) -> TimmSource:
    in_folder(root / "files")
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}.tar", "w") as tar:
            tar.add(root / "files" / split, arcname=".")
    return TimmSource(
        name="folder", root=root, train_split="train.tar", test_split="test.tar", n_val=6
    )


def in_tar_per_class(root: Path) -> TimmSource:
    """A tar file of tar files, one a class: the members of two classes have the same names."""
    in_folder(root / "files")
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}.tar", "w") as outer:
            for folder in sorted((root / "files" / split).iterdir()):
                inner = io.BytesIO()
                with tarfile.open(fileobj=inner, mode="w") as tar:
                    for path in sorted(folder.iterdir()):
                        tar.add(path, arcname=path.name)
                info = tarfile.TarInfo(f"{folder.name}.tar")
                info.size = inner.tell()
                inner.seek(0)
                outer.addfile(info, inner)
    return TimmSource(
        name="folder", root=root, train_split="train.tar", test_split="test.tar", n_val=6
    )


LAYOUTS = [in_folder, in_torchvisions_folder, in_tar, in_tar_per_class]


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> TimmSource:
    return request.param(tmp_path)


def expected(folder: Path) -> dict[bytes, str]:
    """The decoded pixels of every image below `folder`, and its class."""
    transform = PREPROCESSING.transform()
    paths = folder.rglob("*/*.*")
    return {transform(Image.open(p)).numpy().tobytes(): p.parent.name for p in paths}


def contents(split: Split) -> dict[bytes, str]:
    assert isinstance(split, TensorSplit)
    assert split.class_names is not None
    return {
        image.numpy().tobytes(): split.class_names[label]
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    }


def files_of(source: TimmSource) -> Path:
    root = Path(source.root or "")
    return root / "files" if (root / "files").exists() else root


def test_every_layout_gives_the_same_images_and_classes(source: TimmSource) -> None:
    """Val and train are the training images; test's labels count train's classes, not its own."""
    train, val = load_search_splits(source, PREPROCESSING)
    test = load_test_split(source, PREPROCESSING)
    assert train.class_names == val.class_names == test.class_names == ("cat", "dog", "eel")
    assert (len(train), len(val), len(test)) == (12, 6, 6)
    assert contents(train) | contents(val) == expected(files_of(source) / "train")
    assert contents(test) == expected(files_of(source) / "test")


@pytest.mark.slow
def test_every_layout_streams_the_same_images(source: TimmSource) -> None:
    """From two processes and two threads: an open tar file must not be shared by either."""
    kept = load_split(source, "train", PREPROCESSING)
    streamed = load_split(source, "train", PREPROCESSING, cache_bytes=0, decode_workers=2)
    assert isinstance(streamed, StreamedSplit)
    assert isinstance(kept, TensorSplit)
    for (images, labels), (again, labels_again) in zip(
        kept.batches(2), streamed.batches(2), strict=True
    ):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)
    everything = torch.arange(12).repeat(3)
    elsewhere = pickle.loads(pickle.dumps(streamed))
    for split in (streamed, elsewhere):
        assert torch.equal(split.gather(everything)[0], kept.gather(everything)[0])
    assert elsewhere.fingerprint == streamed.fingerprint


@pytest.mark.slow
def test_threads_take_turns_at_a_tar_file(tmp_path: Path) -> None:
    """It has one position: a thread that reads where another one has just sought gets rubbish."""
    source = in_tar(tmp_path)
    kept = load_split(source, "train", PREPROCESSING, decode_workers=1)
    streamed = load_split(source, "train", PREPROCESSING, cache_bytes=0, decode_workers=8)
    often = torch.arange(12).repeat(100)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        images, _ = streamed.gather(often)
    finally:
        sys.setswitchinterval(interval)
    assert torch.equal(images, kept.gather(often)[0])


def test_a_loaders_worker_opens_a_tar_file_itself(tmp_path: Path) -> None:
    """Forked processes share the position of a file that is open. Seen here by replacing the file:
    a process that had it open goes on reading the old one.
    """
    source = in_tar(tmp_path)
    streamed = load_split(source, "train", PREPROCESSING, cache_bytes=0, decode_workers=1)
    before, _ = streamed.gather(torch.arange(12))
    write_classes(tmp_path / "other", TRAIN, seed=2000)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "other", arcname=".")
    (tmp_path / "other.tar").rename(tmp_path / "train.tar")
    assert torch.equal(streamed.gather(torch.arange(12))[0], before)
    forked, _ = next(streamed.batches(12))
    replaced = load_split(source, "train", PREPROCESSING)
    assert torch.equal(forked, replaced.gather(torch.arange(12))[0])


def test_val_is_drawn_in_proportion_and_by_the_seed(source: TimmSource) -> None:
    val = source.examples("val")
    assert np.bincount(val.labels).tolist() == [2, 3, 1]
    other_seed = TimmSource(**(vars(source) | {"seed": 1}))
    assert identities(source, "val") == identities(source, "val") != identities(other_seed, "val")
    assert len(identities(source, "val") | identities(source, "train")) == 18


def identities(source: TimmSource, split: str) -> set[str]:
    examples = source.examples(split)
    return {examples.images.identity(i) for i in range(len(examples.labels))}


def write_mnist(root: Path, counts: dict[str, int]) -> None:
    """The four IDX files of MNIST, as its authors describe them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (part, n) in enumerate(counts.items()):
        images = np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(
                f">{array.ndim}I", *array.shape
            )
            (raw / f"{name}-ubyte").write_bytes(header + array.tobytes())
            with gzip.open(raw / f"{name}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())


def test_torchvisions_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path, {"train": 40, "t10k": 20})
    source = TimmSource(name="torch/mnist", root=tmp_path, n_train=15, n_val=10)
    train, val = load_search_splits(source, PREPROCESSING)
    test = load_test_split(source, PREPROCESSING)
    assert (len(train), len(val), len(test)) == (15, 10, 20)
    assert train.num_classes == 10
    assert train.class_names is not None
    assert train.class_names[3] == "3 - three"
    assert np.bincount(val.gather(torch.arange(10))[1]).tolist() == [1] * 10
    assert isinstance(test, TensorSplit)
    first = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)[0]
    assert torch.equal(test.images[0], PREPROCESSING.transform()(Image.fromarray(first)))


@pytest.mark.parametrize("val_split", ["validation", "test", "val"])
def test_a_data_set_with_two_splits_has_no_val_to_name(tmp_path: Path, val_split: str) -> None:
    """Torchvision reads every name but train as its test part."""
    with pytest.raises(DataError, match=r"val_split='.*' and test_split='test' of torch/mnist may"):
        TimmSource(name="torch/mnist", root=tmp_path, val_split=val_split)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "train", "test"),
        ("train", "train[80%:]", "test"),
        ("train+test", None, "test"),
        ("train", "test[:50%]", "test"),
        ("all", None, "test"),
    ],
)
def test_splits_that_share_images_are_refused(train: str, val: str | None, test: str) -> None:
    with pytest.raises(DataError, match="may hold the same images"):
        TimmSource(name="hfds/beans", train_split=train, val_split=val, test_split=test)


def test_slices_of_one_split_are_taken_as_apart() -> None:
    source = TimmSource(
        name="hfds/beans", train_split="train[:80%]", val_split="train[80%:]", test_split="test"
    )
    assert source.val_split == "train[80%:]"


def test_two_names_of_one_folder_are_refused(tmp_path: Path) -> None:
    """Timm looks for `val` where `validation` is not there."""
    write_classes(tmp_path / "train", TRAIN)
    write_classes(tmp_path / "val", TEST)
    with pytest.raises(DataError, match="val_split='val' and test_split='validation' of folder"):
        TimmSource(name="folder", root=tmp_path, val_split="val", test_split="validation")


def test_one_tar_file_is_one_split(tmp_path: Path) -> None:
    in_tar(tmp_path)
    with pytest.raises(DataError, match="may hold the same images"):
        TimmSource(name="folder", root=tmp_path / "train.tar", n_val=6)
    alone = TimmSource(name="folder", root=tmp_path / "train.tar", n_val=6, test_split=None)
    assert len(alone.examples("train").labels) == 12
    with pytest.raises(DataError, match="folder has no test split: test_split is not set"):
        alone.examples("test")


def test_a_split_that_is_not_there_is_not_all_of_root(tmp_path: Path) -> None:
    """Timm would read the whole of root, with the training images."""
    write_classes(tmp_path / "train", TRAIN)
    with pytest.raises(DataError, match=r"folder, split 'test': not in .*, which has train"):
        TimmSource(name="folder", root=tmp_path).examples("test")


def test_a_class_that_train_lacks_is_an_error(tmp_path: Path) -> None:
    source = in_folder(tmp_path)
    write_classes(tmp_path / "test", {"fox": 1, "ant": 1})
    with pytest.raises(DataError, match=r"'test' has classes that .*'train' does not .*: ant, fox"):
        source.examples("test")


def test_an_image_that_does_not_decode_is_an_error(source: TimmSource) -> None:
    """Timm's own loader would take the next image in its place, with the next image's label."""
    root = Path(source.root or "")
    files = files_of(source)
    truncate(files / "test/eel/001.jpg")
    if files != root:
        with tarfile.open(root / "test.tar", "w") as tar:
            tar.add(files / "test", arcname=".")
    with pytest.raises(DataError, match=r"001\.jpg: the image does not decode: .*[Tt]runcated"):
        load_test_split(source, PREPROCESSING)


def test_subsets_need_enough_images(tmp_path: Path) -> None:
    fields = vars(in_folder(tmp_path))
    with pytest.raises(DataError, match="n_train=13, but folder has 12 images for it"):
        TimmSource(**(fields | {"n_train": 13})).examples("train")
    with pytest.raises(DataError, match="n_val=19, but folder has 18 images for it"):
        TimmSource(**(fields | {"n_val": 19})).examples("val")
    with pytest.raises(DataError, match="no image is left in folder, split 'train'"):
        TimmSource(**(fields | {"n_val": 18})).examples("train")
    with pytest.raises(DataError, match=r"no image is left .*: give val_split, or n_val"):
        TimmSource(**(fields | {"n_val": None})).examples("val")
    with pytest.raises(DataError, match="n_val must be at least 1, or None; got 0"):
        TimmSource(**(fields | {"n_val": 0}))


def test_a_val_split_of_its_own_is_taken_whole_or_in_part(tmp_path: Path) -> None:
    fields = vars(in_folder(tmp_path)) | {"val_split": "validation", "n_val": None}
    write_classes(tmp_path / "val", {"eel": 4}, seed=900)
    assert TimmSource(**fields).examples("val").labels == (2, 2, 2, 2)
    assert TimmSource(**(fields | {"n_val": 3})).examples("val").labels == (2, 2, 2)
    assert len(TimmSource(**fields).examples("train").labels) == 18


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", r"timm reads no data set 'cifar10'; accepted are torch/<name>, hfds/<name>"),
        ("keras/cifar10", "timm reads no data set 'keras/cifar10'"),
        ("torch/cifar11", "torch/cifar11, split 'train' in .* cannot be read: Unknown torchvision"),
        ("torch/cifar10", "torch/cifar10, split 'train' in .* cannot be read: Dataset not found"),
    ],
)
def test_a_name_that_timm_cannot_read(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TimmSource(name=name, root=tmp_path).examples("train")


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("torch/mnist", "folder"):
        with pytest.raises(DataError, match=f"the root of {name}, split 'train' is not there: .*x"):
            TimmSource(name=name, root=tmp_path / "x").examples("train")
        with pytest.raises(DataError, match=f"{name}, split 'train' needs a root"):
            TimmSource(name=name).examples("train")


def test_a_missing_package_is_named() -> None:
    try:
        import tensorflow_datasets  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match="needs the package tensorflow_datasets; install it"):
            TimmSource(name="tfds/mnist").examples("train")
    else:
        pytest.skip("tensorflow_datasets is installed")


def write_shards(root: Path, split: str, labels: list[int], per_shard: int = 4) -> list[bytes]:
    """Webdataset shards with an _info.json; the decoded pixels of each sample, in order."""
    root.mkdir(exist_ok=True)
    transform = PREPROCESSING.transform()
    decoded, names, lengths = [], [], []
    for shard, start in enumerate(range(0, len(labels), per_shard)):
        names.append(f"{split}-{shard:04d}.tar")
        lengths.append(len(labels[start : start + per_shard]))
        with tarfile.open(root / names[-1], "w") as tar:
            for i in range(start, start + lengths[-1]):
                image = Image.fromarray(pixels(1000 * len(split) + i))
                file = io.BytesIO()
                image.save(file, "png")
                decoded.append(transform(image).numpy().tobytes())
                for extension, content in (("png", file.getvalue()), ("cls", b"%d" % labels[i])):
                    info = tarfile.TarInfo(f"{i:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    path = root / "_info.json"
    info = json.loads(path.read_text()) if path.exists() else {"splits": {}}
    info["splits"][split] = {
        "name": split,
        "num_samples": len(labels),
        "filenames": names,
        "shard_lengths": lengths,
    }
    path.write_text(json.dumps(info))
    return decoded


@pytest.fixture
def shards(tmp_path: Path) -> TimmSource:
    pytest.importorskip("webdataset", reason="webdataset is not installed")
    write_shards(tmp_path, "train", [i % 3 for i in range(18)])
    write_shards(tmp_path, "test", [2, 0, 1, 1, 0])
    return TimmSource(name="wds/mine", root=tmp_path, n_val=6)


def test_webdataset_is_read_whole_and_in_order(shards: TimmSource, tmp_path: Path) -> None:
    train, val = load_search_splits(shards, PREPROCESSING)
    test = load_test_split(shards, PREPROCESSING)
    assert (len(train), len(val), train.num_classes) == (12, 6, 3)
    assert isinstance(test, TensorSplit)
    decoded = write_shards(tmp_path / "again", "test", [2, 0, 1, 1, 0])
    assert [image.numpy().tobytes() for image in test.images] == decoded
    assert test.labels.tolist() == [2, 0, 1, 1, 0]


def test_webdataset_beyond_the_cache_is_refused(shards: TimmSource) -> None:
    with pytest.raises(DataError, match="can only be read in order; raise the limit, take fewer"):
        load_split(shards, "train", PREPROCESSING, cache_bytes=12 * 3 * 16 * 16 - 1)


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_webdataset_does_not_pass_over_a_broken_image(
    shards: TimmSource, tmp_path: Path, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the application does not want to see warnings, by which timm tells of it."""
    caplog.set_level(level)
    path = tmp_path / "test-0000.tar"
    content = path.read_bytes()
    cut = content.index(b"IDAT") + 20
    path.write_bytes(content[:cut] + b"\0" * 40 + content[cut + 40 :])
    with pytest.raises(DataError, match="wds/mine, split 'test': a sample after the first 0"):
        load_test_split(shards, PREPROCESSING)


def test_labels_of_a_nameless_reader_are_checked(shards: TimmSource) -> None:
    with pytest.raises(DataError, match="label 2 is not a class; accepted are 0 to 1"):
        TimmSource(**(vars(shards) | {"num_classes": 2})).examples("test")
    examples: Examples = TimmSource(**(vars(shards) | {"num_classes": 7})).examples("test")
    assert examples.label_space.num_classes == 7


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["hfds", "hfids"])
def test_hugging_face_datasets(tmp_path: Path, reader: str) -> None:
    """A data set on disk, by its path: nothing is fetched."""
    pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    in_folder(tmp_path / "data")
    source = TimmSource(
        name=f"{reader}/{tmp_path / 'data'}",
        root=tmp_path / "cache",
        n_val=6,
        download=reader == "hfids",
    )
    train, val = load_search_splits(source, PREPROCESSING)
    assert contents(train) | contents(val) == expected(tmp_path / "data/train")
    assert contents(load_test_split(source, PREPROCESSING)) == expected(tmp_path / "data/test")
    with pytest.raises(DataError, match=r"cannot be read: .*species"):
        TimmSource(**(vars(source) | {"target_key": "species"})).examples("train")
