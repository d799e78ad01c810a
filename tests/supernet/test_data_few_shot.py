"""Few-shot lists and ImageNet's domains, on folder trees of their real form."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from supernet.data import DomainSource, FewShotSource
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
