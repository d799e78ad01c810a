"""Predictions: images are found and prepared as they should be, and broken ones are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_networks import DIGITS, filled_supernet
from timm.data import create_transform, resolve_model_data_config

from supernet import Preprocessing
from supernet.data import find_images
from supernet.errors import DataError, ExportError
from supernet.export import subnet_export, write_export
from supernet.formats import Classifier, load_classifier
from supernet.prediction import Prediction, predictions

CLASS_NAMES = ("five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose images are not prepared as timm would by default."""
    directory = tmp_path_factory.mktemp("prediction") / "export"
    supernet = filled_supernet(DIGITS)
    preprocessing = Preprocessing.from_model(
        DIGITS.build(), interpolation="bilinear", mean=(0.25,), std=(0.75,), crop_pct=0.5
    )
    write_export(
        directory,
        subnet_export(supernet, supernet.space.max_subnet()),
        architecture=DIGITS,
        preprocessing=preprocessing,
        class_names=CLASS_NAMES,
        record={},
    )
    return directory


@pytest.fixture(scope="module")
def classifier(export: Path) -> Classifier:
    return load_classifier(export)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nested folders, another size and mode, hidden files, and three that do not decode."""
    folder = tmp_path / "photos"
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    random = np.random.default_rng(0)
    for name in ("one.png", "a/two.png", "a/deep/three.PNG", ".hidden/no.png"):
        Image.fromarray(random.integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(folder / name)
    whole = (folder / "one.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[:-200])
    (folder / "empty.jpg").touch()
    (folder / "text.gif").write_text("no image")
    (folder / "notes.txt").write_text("passed over")
    return folder


def names(found: list[Path], below: Path) -> list[str]:
    return [path.relative_to(below).as_posix() for path in found]


def test_predictions_are_those_of_timm(export: Path, classifier: Classifier, photos: Path) -> None:
    """By another way: timm's own transform, from the export's config.json."""
    model: Any = timm.create_model(f"local-dir:{export}", pretrained=True).eval()
    transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)
    paths = [photos / "one.png", photos / "a" / "two.png"]
    for prediction in predictions(classifier, paths, top_k=5):
        with Image.open(prediction.path) as image, torch.inference_mode():
            expected = model(transform(image.convert("L"))[None]).softmax(1)[0]
        order = expected.argsort(descending=True)
        assert [name for name, _ in prediction.classes] == [CLASS_NAMES[k] for k in order]
        probabilities = [probability for _, probability in prediction.classes]
        assert probabilities == pytest.approx(expected[order].tolist(), abs=1e-5)
        assert sum(probabilities) == pytest.approx(1)


def test_images_that_do_not_decode_are_told_in_their_place(
    classifier: Classifier, photos: Path
) -> None:
    """In any batch, one of broken images alone included, and the others are as without them."""
    paths = find_images([photos])
    by_size: dict[int, list[Prediction]] = {
        size: list(predictions(classifier, paths, batch_size=size, workers=2))
        for size in (1, 2, 64)
    }
    for found in by_size.values():
        assert [prediction.path for prediction in found] == paths
        faults = {p.path.name: p.fault for p in found if p.fault is not None}
        assert set(faults) == {"cut.png", "empty.jpg", "text.gif"}
        assert all(str(photos) in fault and "does not decode" in fault for fault in faults.values())
        assert all(bool(p.classes) == (p.fault is None) for p in found)
    alone = list(predictions(classifier, [photos / "one.png"]))
    (among,) = [p for p in by_size[64] if p.path.name == "one.png"]
    assert among.classes[0][0] == alone[0].classes[0][0]
    assert among.classes[0][1] == pytest.approx(alone[0].classes[0][1], abs=1e-6)


def test_more_classes_than_there_are_give_all(classifier: Classifier, photos: Path) -> None:
    (prediction,) = predictions(classifier, [photos / "one.png"], top_k=99)
    assert {name for name, _ in prediction.classes} == set(CLASS_NAMES)


def test_without_names_classes_are_numbers(
    classifier: Classifier, photos: Path, tmp_path: Path, export: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    config = json.loads((export / "config.json").read_text())
    del config["label_names"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "model.safetensors").write_bytes((export / "model.safetensors").read_bytes())
    (named,) = predictions(classifier, [photos / "one.png"])
    (numbered,) = predictions(load_classifier(copy), [photos / "one.png"])
    assert numbered.classes[0][0] == str(CLASS_NAMES.index(named.classes[0][0]))


def test_logits_that_are_no_predictions_are_refused(classifier: Classifier, photos: Path) -> None:
    """Rather than given a probability."""
    for run, told in (
        (lambda images: torch.full((len(images), 5), float("nan")), "not all finite"),
        (lambda images: torch.zeros(len(images), 6), "6 logits, but its export names 5 classes"),
    ):
        broken = Classifier(run=run, facts=classifier.facts)
        with pytest.raises(ExportError, match=told):
            list(predictions(broken, [photos / "one.png"]))


def test_folders_files_and_patterns_are_found_once(photos: Path) -> None:
    everything = find_images([photos])
    expected = ["a/cut.png", "a/deep/three.PNG", "a/two.png", "empty.jpg", "one.png", "text.gif"]
    assert names(everything, photos) == expected
    assert find_images([photos, photos / "one.png", str(photos / "*")]) == everything
    found = find_images([photos / "notes.txt", f"{photos}/**/t*.png", photos / "a" / "deep"])
    assert names(found, photos) == ["notes.txt", "a/two.png", "a/deep/three.PNG"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "nowhere' is not there; accepted: folders, image files, patterns"),
        ("empty", "no image below .*empty'; accepted are files named .bmp"),
        ("*.webp", r"no image matches .*\*.webp'"),
    ],
)
def test_a_name_without_images_is_told(name: str, told: str, photos: Path) -> None:
    """A mistyped folder would else look like a folder of no images."""
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=told):
        find_images([photos / name])
