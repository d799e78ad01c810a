"""The formats of an export: the same network in each, what each says of itself, and whole or not
at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import pytest
import timm
import torch
from huggingface_hub import metadata_load
from model_hub import model_hub
from small_networks import DIGITS, digits, filled_supernet, images_for
from torch import Tensor, nn

from glora_search.study.format_names import FORMAT_NAMES
from supernet import Preprocessing
from supernet.errors import ExportError
from supernet.export import Exportable, subnet_export, write_export
from supernet.formats import (
    FORMATS,
    Besides,
    Classifier,
    Written,
    check_formats,
    load_classifier,
    writing,
)
from supernet.formats.facts import ModelFacts
from supernet.formats.model_card import model_card
from supernet.formats.sample import N_IMAGES, Sample, sample_of

CLASS_NAMES = ("five, fünf", 'six "VI"', "seven`", "eight", "nine")
PREPROCESSING = Preprocessing(  # unlike what timm would take for a network of this name
    input_size=(1, 8, 8),
    interpolation="bilinear",
    mean=(0.25,),
    std=(0.75,),
    crop_pct=0.8,
    crop_mode="squash",
)
RECORD: dict[str, Any] = {
    "study": "a-study",
    "trial": 7,
    "data": {"source": "digits", "train_images": 40},
    "val": {"top1": 0.5, "loss": 1.25, "n_images": 50},
    "test": {"top1": 0.4375, "loss": 1.5, "n_images": 896},
    "n_params": {"adapter": 1234, "head": 85, "merged_model": 7043},
}
ALL = ("onnx", "pt2", "hf")
LOADED = {"timm": ".", "onnx": "model.onnx", "pt2": "model.pt2", "hf": "."}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export in all formats, and the network that it should be."""

    directory: Path
    network: nn.Module
    written: dict[str, Written]


def exportable() -> Exportable:
    supernet = filled_supernet(DIGITS)
    return subnet_export(supernet, supernet.space.max_subnet())


def write(directory: Path, *formats: str, **changes: Any) -> dict[str, Written]:
    """The same network once more."""
    besides = Besides(names=formats, split=digits()[1], **changes)
    return write_export(
        directory,
        exportable(),
        architecture=DIGITS,
        preprocessing=PREPROCESSING,
        class_names=CLASS_NAMES,
        record=RECORD,
        besides=besides,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    directory = tmp_path_factory.mktemp("formats") / "export"
    written = write(directory, *ALL)
    return Exported(directory=directory, network=exportable().network.eval(), written=written)


@pytest.fixture(scope="module")
def loaded(exported: Exported) -> dict[str, Classifier]:
    """Each format, loaded from the disk."""
    return {name: load_classifier(exported.directory / path) for name, path in LOADED.items()}


def test_names_are_those_of_study_files() -> None:
    """The study's package knows them without torch."""
    assert ("timm", *FORMATS) == FORMAT_NAMES


# The contract of every format


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_logits_are_the_networks_for_any_number_of_images(
    name: str, n: int, exported: Exported, loaded: dict[str, Classifier]
) -> None:
    """A file with a frozen batch size, or with other weights, would be of no use."""
    images = images_for(exported.network, n)
    with torch.inference_mode():
        expected = exported.network(images)
    logits = loaded[name].run(images)
    assert logits.shape == (n, 5)
    assert (logits - expected).abs().max() < 1e-5
    assert expected.std() > 0.1, "logits that are all alike would prove nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_each_says_how_images_are_prepared(name: str, loaded: dict[str, Classifier]) -> None:
    facts = loaded[name].facts
    assert facts.preprocessing == PREPROCESSING
    assert facts.class_names == CLASS_NAMES
    assert facts.architecture == DIGITS.model


@pytest.mark.slow
def test_the_record_tells_what_was_compared(exported: Exported) -> None:
    """In memory and in subnet.json; the files are there and readable by all."""
    assert tuple(exported.written) == ALL
    document = json.loads((exported.directory / "subnet.json").read_text())
    for name, one in exported.written.items():
        assert Written(**document["formats"][name]) == one
        assert one.n_images == min(N_IMAGES, len(digits()[1]))
        assert 0 <= one.logit_difference <= one.tolerance
        assert (exported.directory / one.file).stat().st_mode & 0o044 == 0o044
    assert {path.name for path in exported.directory.iterdir()} == {
        *("model.safetensors", "config.json", "adapter.safetensors", "subnet.json"),
        *("model.onnx", "model.pt2", "README.md"),
    }


_ELSEWHERE = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("timm", "supernet", "search_spaces", "glora_search", "ray"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
folder = sys.argv[1]
import numpy, onnxruntime

session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
facts = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
channels, height, width = facts["input_size"]
images = numpy.linspace(-1, 1, 3 * channels * height * width, dtype=numpy.float32)
images = images.reshape(3, channels, height, width)
(logits,) = session.run(["logits"], {"images": images})
assert "torch" not in sys.modules

import torch

extra = {"facts.json": ""}
program = torch.export.load(f"{folder}/model.pt2", extra_files=extra)
with torch.inference_mode():
    others = program.module()(torch.from_numpy(images))
both = [facts, json.loads(extra["facts.json"])]
print(json.dumps({"onnx": logits.tolist(), "pt2": others.tolist(), "facts": both}))
"""


@pytest.mark.slow
def test_files_run_where_this_project_and_timm_are_not(exported: Exported) -> None:
    """What the deployment page promises: onnxruntime alone, torch alone."""
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(exported.directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    images = torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8)
    with torch.inference_mode():
        expected = exported.network(images)
    for name in ("onnx", "pt2"):
        assert (torch.tensor(told[name]) - expected).abs().max() < 1e-5
    for facts in told["facts"]:
        assert facts["mean"] == [0.25]
        assert facts["class_names"] == list(CLASS_NAMES)


@pytest.mark.slow
def test_the_folder_is_a_hugging_face_repository(exported: Exported) -> None:
    """It is loaded by timm, and the hub reads the card's front matter."""
    loaded: Any = timm.create_model(f"local-dir:{exported.directory}", pretrained=True).eval()
    images = images_for(exported.network, 3)
    with torch.inference_mode():
        assert torch.equal(loaded(images), exported.network(images))
    metadata = metadata_load(exported.directory / "README.md")
    assert metadata is not None
    assert metadata["library_name"] == "timm"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["license"] == "unknown"
    card = (exported.directory / "README.md").read_text()
    assert "| test: read once, for this export | 896 | 43.75 | 1.5000 |" in card
    assert "1,234 of the adapter" in card
    assert "`model.onnx`, `model.pt2`" in card


_FROM_THE_HUB = """
import sys, timm, torch
model = timm.create_model("hf-hub:ada/digits", pretrained=True).eval()
with torch.inference_mode():
    torch.save(model(torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8)), sys.argv[1])
"""


@pytest.mark.slow
def test_timm_loads_the_folder_from_a_hub(exported: Exported, tmp_path: Path) -> None:
    """By name alone, as `hf-hub:` does with what was uploaded; the hub is this test's."""
    out = tmp_path / "logits.pt"
    with model_hub("ada/digits", exported.directory) as endpoint:
        variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", _FROM_THE_HUB, str(out)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        expected = exported.network(torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8))
    assert torch.equal(torch.load(out), expected)


# Whole or not at all


def nothing_in(folder: Path) -> bool:
    """Hidden files would show as well."""
    return not any(folder.iterdir())


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "export", "hf", on_written=interrupt)
    assert nothing_in(tmp_path)


def test_a_format_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the check is stricter than the same weights can be."""
    strict = {**FORMATS, "hf": replace(FORMATS["hf"], tolerance=-1.0)}
    monkeypatch.setattr(writing, "FORMATS", MappingProxyType(strict))
    with pytest.raises(ExportError, match=r"format hf differs by 0 in a logit of 50 images"):
        write(tmp_path / "export", "hf")
    assert nothing_in(tmp_path)


def test_a_format_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise TypeError("several\nlines")

    monkeypatch.setattr(writing, "write_pt2", fails)
    with pytest.raises(ExportError, match=r"cannot write vit_tiny\S+ in the format pt2: several l"):
        write(tmp_path / "export", "pt2")
    assert nothing_in(tmp_path)


# What is asked for


def test_formats_are_written_once_and_in_one_order() -> None:
    assert check_formats(["hf", "timm", "pt2", "hf"]) == ("pt2", "hf")
    assert check_formats(()) == ()


def test_an_unknown_format_is_told_with_those_there_are() -> None:
    with pytest.raises(ExportError, match="no format 'tflite'; accepted: timm, onnx, pt2, hf"):
        check_formats(["tflite"])


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_told_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's own installation has none of the three, and works."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"needs the package {package}; install glora-search"):
        check_formats(["onnx"])
    assert check_formats(["pt2"]) == ("pt2",)
    if package == "onnxruntime":
        (tmp_path / "model.onnx").touch()
        with pytest.raises(ExportError, match=r"needs the package onnxruntime; install glora-s"):
            load_classifier(tmp_path / "model.onnx")


# The comparison


@pytest.mark.parametrize(
    ("run", "difference"),
    [
        (lambda images: images.flatten(1)[:, :2], 0.0),
        (lambda images: images.flatten(1)[:, :2] + 0.5, 0.5),
        (lambda images: images.flatten(1)[:, :3], float("inf")),
        (lambda images: images.flatten(1)[:, :2] / 0, float("nan")),
    ],
)
def test_differences_are_found(run: Callable[[Tensor], Tensor], difference: float) -> None:
    images = torch.zeros(3, 1, 2, 2)
    sample = Sample(batches=(images,), logits=(torch.zeros(3, 2),))
    assert sample.largest_difference(run) == pytest.approx(difference, nan_ok=True)


def test_the_sample_has_batches_of_several_sizes_from_all_of_the_split() -> None:
    """A split may be sorted by class, and a batch size may have been frozen."""
    network, val = DIGITS.build().eval(), digits()[1]
    sample = sample_of(network, val)
    assert [len(batch) for batch in sample.batches] == [1, 2, 47]
    first, last = val.gather(torch.tensor([0, len(val) - 1]))[0]
    assert torch.equal(sample.batches[0][0], first)
    assert torch.equal(sample.batches[-1][-1], last)


# What cannot be loaded


def without_facts(exported: Exported, folder: Path) -> Path:
    """An ONNX file as others write it."""
    model = onnx.load(exported.directory / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "foreign.onnx")
    return folder / "foreign.onnx"


def without_mean(exported: Exported, folder: Path) -> Path:
    """A folder whose config.json leaves something to guess."""
    config = json.loads((exported.directory / "config.json").read_text())
    del config["pretrained_cfg"]["mean"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    return folder


def cut(name: str) -> Callable[[Exported, Path], Path]:
    """The first half of a file, as a broken copy leaves it."""

    def half(exported: Exported, folder: Path) -> Path:
        content = (exported.directory / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        return folder / name

    return half


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda exported, folder: folder / "nowhere", "is not there; accepted: an export's folder"),
        (lambda exported, folder: folder, "there is no config.json in it"),
        (lambda exported, folder: exported.directory / "README.md", "is no export; accepted"),
        (without_facts, "foreign.onnx does not say architecture, input_size, .* is not guessed"),
        (without_mean, "config.json does not say mean, and that is not guessed"),
        (cut("model.onnx"), "cannot load .*model.onnx': "),
        (cut("model.pt2"), "cannot load .*model.pt2': "),
    ],
    ids=["nowhere", "empty", "text", "foreign", "no mean", "half an onnx", "half a pt2"],
)
def test_what_is_no_export_is_one_clear_error(
    make: Callable[[Exported, Path], Path], told: str, exported: Exported, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=told) as raised:
        load_classifier(make(exported, tmp_path))
    assert "\n" not in str(raised.value)


def test_facts_that_are_wrong_are_told() -> None:
    facts = ModelFacts(architecture="vit", preprocessing=PREPROCESSING, class_names=None)
    texts = facts.to_texts()
    assert ModelFacts.from_texts({**texts, "other": "no JSON"}, "x") == facts
    for wrong in ({"mean": "[0.1"}, {"mean": "[0.1, 0.2]"}, {"crop_pct": '"a"'}):
        with pytest.raises(ExportError, match="x has metadata that is not"):
            ModelFacts.from_texts({**texts, **wrong}, "x")


# The card


def test_a_card_says_no_more_than_is_known() -> None:
    facts = ModelFacts(architecture="vit", preprocessing=PREPROCESSING, class_names=None)
    card = model_card(facts, {}, ())
    assert "names are not known" in card
    assert not any(word in card for word in ("None", "## Figures", "## Parameters", "same network"))
    many = replace(facts, class_names=tuple(f"class\n{k}" for k in range(1000)))
    card = model_card(many, {**RECORD, "test": None}, ())
    assert "`class 49`, and 950 more" in card
    assert "no test split" in card
