"""Formats and predictions from a study file or the command line: launch, export, predict."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_study import study, study_table

import glora_search
from glora_search.cli.commands import main
from glora_search.cli.study_tables import search_output
from glora_search.operations.exporting import export
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import parse_study, stored_study
from supernet.errors import ExportError

Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Launched:
    """A finished study whose file asks for two formats."""

    folder: Path
    result: SearchResult

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder / 'studies.db'}"


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("formats")
    file = study(
        folder,
        export={"formats": ["hf", "pt2"]},
        cluster={"workers": 0, "artifacts": str(folder / "artifacts")},
    )
    return Launched(folder, launch(file, storage=f"sqlite:///{folder / 'studies.db'}"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, in this process: exit status, stdout, stderr."""

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glora-search", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("one, two.png", "deep/three.png"):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name)
    return folder


# The study file


def test_the_key_is_checked_and_a_study_without_it_has_none(tmp_path: Path) -> None:
    """Studies that were stored before there were formats keep their meaning."""
    for wrong, told in ((["tflite"], "export.formats"), (["hf", "hf"], "each format once")):
        with pytest.raises(StudyFileError, match=told):
            parse_study(study_table(tmp_path, export={"formats": wrong}), origin="study")
    stored = study(tmp_path).model_dump(mode="json")
    assert stored["export"].pop("formats") == []
    assert stored_study(stored) == study(tmp_path)
    again = study(tmp_path, export={"formats": ["onnx"]}).model_dump(mode="json")
    assert stored_study(again).export.formats == ("onnx",)


def test_a_missing_package_is_told_before_anything_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a night of training."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    file = study(tmp_path, export={"formats": ["onnx"]})
    with pytest.raises(ExportError, match=r"onnxruntime; install glora-search\[onnx\]"):
        launch(file, storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert not (tmp_path / "runs").exists()


# Launch and resume


@pytest.mark.slow
def test_a_launch_writes_the_formats_of_its_file(launched: Launched) -> None:
    exported = launched.result.export
    assert tuple(exported.formats) == ("pt2", "hf")
    card = (exported.directory / "README.md").read_text()
    assert "source `digits`" in card
    assert "weights `a local checkpoint`" in card
    for name in ("README.md", "subnet.json"):
        assert str(launched.folder) not in (exported.directory / name).read_text(), "no paths"
    shown = search_output(launched.result)
    assert any(line.startswith("pt2       ") and "model.pt2" in line for line in shown.lines)
    assert set(shown.document["export"]["formats"]) == {"pt2", "hf"}


@pytest.mark.slow
def test_a_resume_takes_what_stands_there_or_what_is_kept(
    launched: Launched, tmp_path: Path
) -> None:
    """And wants all formats that are asked for: a folder that lacks one is not taken for it."""
    before = launched.result.export
    again = resume("tiny", storage=launched.storage)
    assert again.export.summary() == before.summary()
    fewer = resume("tiny", overrides=["export.formats=[]"], storage=launched.storage)
    assert fewer.export.summary() == before.summary()
    with pytest.raises(ExportError, match="not an empty directory"):
        resume("tiny", overrides=['export.formats=["onnx"]'], storage=launched.storage)
    elsewhere = f"export.directory='{tmp_path / 'elsewhere'}'"
    fetched = resume("tiny", overrides=[elsewhere], storage=launched.storage)
    assert fetched.export.formats == before.formats
    for path in before.directory.iterdir():
        assert (tmp_path / "elsewhere" / path.name).read_bytes() == path.read_bytes()


# Export


@pytest.mark.slow
def test_an_export_takes_the_key_or_other_formats(
    launched: Launched, tmp_path: Path, run: Run
) -> None:
    keys = ("--storage", launched.storage, "--out")
    assert tuple(export("tiny", tmp_path / "a", storage=launched.storage).formats) == ("pt2", "hf")
    status, out, _ = run("export", "tiny", *keys, tmp_path / "b", "--format", "hf", "--json")
    assert status == 0
    assert set(json.loads(out)["formats"]) == {"hf"}
    plain = glora_search.export("tiny", tmp_path / "c", formats=[], storage=launched.storage)
    assert plain.formats == {}
    names = {path.name for path in (tmp_path / "c").iterdir()}
    assert names == {"model.safetensors", "config.json", "adapter.safetensors", "subnet.json"}
    assert run("export", "tiny", *keys, tmp_path / "d", "--format", "timm")[0] == 0
    assert {path.name for path in (tmp_path / "d").iterdir()} == names


@pytest.mark.slow
def test_what_cannot_be_exported_is_one_clear_line(
    launched: Launched, tmp_path: Path, run: Run
) -> None:
    keys = ("export", "tiny", "--storage", launched.storage, "--out")
    status, _, err = run(*keys, tmp_path / "x", "--format", "tflite")
    assert status == 2
    assert "'tflite' is not one of 'timm', 'onnx', 'pt2', 'hf'" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.onnx").write_text("mine")
    status, _, err = run(*keys, tmp_path / "full", "--format", "hf")
    assert status == 1
    assert "is not an empty directory" in err
    assert (tmp_path / "full" / "model.onnx").read_text() == "mine"
    with pytest.raises(ExportError, match="no format 'tflite'"):
        export("tiny", tmp_path / "x", formats=["tflite"], storage=launched.storage)
    assert not (tmp_path / "x").exists()


# Predict


@pytest.mark.slow
def test_predictions_are_a_table_and_the_same_from_every_format(
    launched: Launched, photos: Path, run: Run
) -> None:
    directory = launched.result.export.directory
    tables = []
    for name in (".", "model.pt2"):
        status, out, _ = run("predict", directory / name, photos, "--top-k", 2)
        assert status == 0
        tables.append(list(csv.DictReader(io.StringIO(out))))
    for row, other in zip(*tables, strict=True):
        assert (row["path"], row["class"]) == (other["path"], other["class"])
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=2e-6)
    found = [row["path"] for row in tables[0]]
    assert found == [
        str(photos / name) for name in ("deep/three.png", "one, two.png") for _ in "12"
    ]
    assert {row["class"] for row in tables[0]} <= {"1", "4", "7"}


@pytest.mark.slow
def test_broken_images_do_not_end_a_prediction(
    launched: Launched, photos: Path, tmp_path: Path, run: Run
) -> None:
    """The rest is written, and the exit status says that something is missing."""
    (photos / "broken.jpg").write_text("no image")
    out = tmp_path / "found.jsonl"
    command = ("predict", launched.result.export.directory, photos, "--json", "--out", out)
    status, said, err = run(*command)
    assert (status, said) == (1, "")
    assert f"{photos / 'broken.jpg'}: the image does not decode" in err
    assert "error: 1 of 3 images do not decode" in err
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["three.png", "one, two.png"]
    assert all(0 < line["predictions"][0]["probability"] <= 1 for line in lines)
    before = out.read_bytes()
    status, _, err = run(*command)
    assert status == 2
    assert "is there already" in err
    assert out.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("export", "images", "told"),
    [("nowhere", "photos", "nowhere' is not there"), (".", "nowhere", "nowhere' is not there")],
)
def test_what_cannot_be_predicted_is_one_clear_line(
    export: str, images: str, told: str, launched: Launched, photos: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "found.csv"
    directory = launched.result.export.directory
    status, _, err = run("predict", directory / export, photos.parent / images, "--out", out)
    assert status == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert told in line
    assert not out.exists()


@pytest.mark.slow
def test_predicting_is_a_function_too(launched: Launched, photos: Path) -> None:
    """Checked at once, run as it is taken."""
    directory = launched.result.export.directory
    found = list(glora_search.predict(directory, [photos], top_k=3))
    assert [len(prediction.classes) for prediction in found] == [3, 3]
    with pytest.raises(ExportError, match="must be 1 or more; got 0 and 64"):
        glora_search.predict(directory, [photos], top_k=0)
