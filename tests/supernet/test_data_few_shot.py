"""Few-shot lists and ImageNet's domains, on folder trees of their real form."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_images import PREPROCESSING, truncate
from PIL import Image

from supernet.data import FEW_SHOT_SETS, DomainSource, FewShotSource, load_split
from supernet.errors import DataError


def pets(root: Path, lines: str) -> FewShotSource:
    """Pets with a list of one shot, seed 0, and two images, one of them grey."""
    images = root / "oxford_pets" / "images"
    images.mkdir(parents=True)
    Image.new("L", (4, 4)).save(images / "a b 1.png")
    Image.new("CMYK", (4, 4)).save(images / "c.jpg")
    lists = root / "oxford_pets" / "annotations"
    lists.mkdir()
    (lists / "train_meta.list.num_shot_1.seed_0").write_text(lines)
    return FewShotSource(root, "oxford_pets", shots=1)


def test_a_path_may_hold_spaces(tmp_path: Path) -> None:
    examples = pets(tmp_path, "a b 1.png 3\nc.jpg 36\n").examples("train")
    assert examples.labels == (3, 36)
    assert examples.label_space.num_classes == 37


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("c.jpg 37\n", "line 1"),
        ("a b 1.png 0\nd.jpg 1\n", "line 2"),
        ("c.jpg one\n", "line 1: the label must be an integer"),
        ("../c.jpg 1\n", "line 1: the path must be below"),
        ("\n", "is empty"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pets(tmp_path, lines).examples("train")


def test_images_of_all_kinds_decode(tmp_path: Path) -> None:
    """Grey with a space in its name, CMYK, a palette with transparency: three channels each."""
    source = pets(tmp_path, "a b 1.png 3\nc.jpg 36\nsub dir/d.png 0\n")
    palette = tmp_path / "oxford_pets" / "images" / "sub dir" / "d.png"
    palette.parent.mkdir()
    Image.new("RGBA", (4, 4), (250, 10, 10, 128)).convert("P").save(palette, transparency=0)
    split = load_split(source, "train", PREPROCESSING)
    images, labels = next(iter(split.batches(3)))
    assert images.shape == (3, 3, 16, 16)
    assert labels.tolist() == [3, 36, 0]


def test_an_image_that_does_not_decode_names_its_line(tmp_path: Path) -> None:
    source = pets(tmp_path, "a b 1.png 3\nc.jpg 36\n")
    truncate(tmp_path / "oxford_pets" / "images" / "c.jpg")
    told = r"seed_0, line 2: c\.jpg: the image does not decode"
    with pytest.raises(DataError, match=told):
        load_split(source, "train", PREPROCESSING)


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [(name, other) for name, each in FEW_SHOT_SETS.items() for other in each.other_folders],
)
def test_folders_have_either_name(tmp_path: Path, dataset: str, folder: str) -> None:
    pets(tmp_path, "c.jpg 1\n")
    (tmp_path / "oxford_pets").rename(tmp_path / folder)
    assert FewShotSource(tmp_path, dataset, shots=1).examples("train").labels == (1,)


def test_cars_lie_beside_their_lists(tmp_path: Path) -> None:
    """Their paths start with cars_train/, relative to the data set's own folder."""
    folder = tmp_path / "stanford_cars"
    (folder / "cars_train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "cars_train" / "1.jpg")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "val_meta.list").write_text("cars_train/1.jpg 195\n")
    assert FewShotSource(tmp_path, "stanford_cars").examples("val").labels == (195,)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the list annotations/test_meta\.list is not there"):
        pets(tmp_path, "c.jpg 1\n").examples("test")


def test_shots_without_a_list_say_which_there_are(tmp_path: Path) -> None:
    pets(tmp_path, "c.jpg 1\n")
    with pytest.raises(DataError, match=r"lists for these shots: 1 \(seed 0\)"):
        FewShotSource(tmp_path, "oxford_pets", shots=2).examples("train")


def imagenet(root: Path) -> Path:
    """1,000 classes in the training list, and ImageNet-A's 200 folders with an image each."""
    lists = root / "imagenet" / "annotations"
    lists.mkdir(parents=True)
    wnids = [f"n{label:08d}" for label in range(1000)]
    lines = [f"{wnid}/x.png {label}" for label, wnid in enumerate(wnids)]
    (lists / "train_meta.list.num_shot_16.seed_0").write_text("\n".join(lines))
    for wnid in wnids[::5]:
        folder = root / "imagenet-adversarial" / "imagenet-a" / wnid
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "y.png")
    return root


def test_a_domain_has_its_subset_of_the_classes(tmp_path: Path) -> None:
    examples = DomainSource(imagenet(tmp_path), "imagenet-a").examples("test")
    assert examples.labels == tuple(range(0, 1000, 5))
    assert examples.label_space.num_classes == 1000
    assert examples.scored_classes == frozenset(range(0, 1000, 5))
    whole = DomainSource(tmp_path, "imagenet-a", mask_classes=False).examples("test")
    assert whole.scored_classes is None


def test_a_domain_that_lacks_a_class_folder_is_refused(tmp_path: Path) -> None:
    folder = imagenet(tmp_path) / "imagenet-adversarial" / "imagenet-a" / "n00000005"
    folder.rename(folder.with_name("n99999999"))
    with pytest.raises(DataError, match="unknown are n99999999"):
        DomainSource(tmp_path, "imagenet-a").examples("test")


def test_a_numbered_domain_takes_its_labels_from_the_folders(tmp_path: Path) -> None:
    imagenet(tmp_path)
    folder = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    for label in range(1000):
        (folder / str(label)).mkdir(parents=True)
        (folder / str(label) / "an image.jpeg").touch()
    examples = DomainSource(tmp_path, "imagenetv2").examples("test")
    assert sorted(examples.labels) == list(range(1000))
    assert examples.labels[1] == 1
    assert examples.labels[2] == 10, "folders are read in the order of their names"
    assert examples.scored_classes is None


def change_list(root: Path, before: str, after: str) -> None:
    path = root / "imagenet" / "annotations" / "train_meta.list.num_shot_16.seed_0"
    path.write_text(path.read_text().replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("n00000007/x.png 7\n", "n00000007/x.png 1000\n", "line 8: .*label 1000 is not a class"),
        ("n00000007/x.png 7\n", "n00000006/y.png 7\n", "line 8: .*n00000006 has label 6 before"),
        ("n00000007/x.png 7\n", "n00000007/x.png 6\n", "1000 folders with 999 labels"),
        ("n00000007/x.png 7\n", "", "got 999 folders with 999 labels"),
    ],
)
def test_the_training_list_must_name_the_1000_classes(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    change_list(imagenet(tmp_path), before, after)
    with pytest.raises(DataError, match=message):
        DomainSource(tmp_path, "imagenet-a").label_space()


def test_what_a_domain_lacks_is_named(tmp_path: Path) -> None:
    imagenet(tmp_path)
    with pytest.raises(DataError, match="imagenet-r is not there: no folder"):
        DomainSource(tmp_path, "imagenet-r").examples("test")
    with pytest.raises(DataError, match=r"line 1: n00000000/x\.png: no such file below"):
        DomainSource(tmp_path, "imagenet-a").examples("train")
    with pytest.raises(DataError, match=r"list annotations/unofficial_val_list_4_shot16seed0 is"):
        DomainSource(tmp_path, "imagenet-a").examples("val")
    (tmp_path / "imagenet-adversarial/imagenet-a/n00000005/y.png").unlink()
    with pytest.raises(DataError, match=r"no image below .*n00000005"):
        DomainSource(tmp_path, "imagenet-a").examples("test")
