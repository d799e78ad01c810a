"""The average of the best subnets, from a study file or the command line to a network of timm."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from tiny_study import N_SUBNETS, found, study, study_table

from glora_search.cli.commands import main
from glora_search.cli.study_tables import export_output, search_output, study_output
from glora_search.operations.exporting import export
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.operations.status import study_status
from glora_search.recording import Database
from glora_search.stages.progress import Silent
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import parse_study
from search_spaces import SubnetConfig
from supernet import evaluate_model
from supernet.errors import ExportError

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Launched:
    """A finished study whose file asks for the average of three."""

    folder: Path
    result: SearchResult

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder / 'studies.db'}"

    def best(self, n: int) -> list[tuple[int, SubnetConfig]]:
        """The best by val loss."""
        with Database.open(self.storage, create=False) as database:
            trials = database.open_study("tiny").trials()
        ranked = sorted(trials, key=lambda k: (trials[k].loss, trials[k].candidate.n_params, k))
        return [(k, trials[k].candidate.subnet) for k in ranked[:n]]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("average")
    file = study(folder, export={"average": 3})
    return Launched(folder, launch(file, storage=f"sqlite:///{folder / 'studies.db'}"))


def check(launched: Launched, directory: Path, n: int) -> dict[str, Any]:
    """Weights, figures and record of an export of the average of the `n` best; its record."""
    best, result = launched.best(n), launched.result
    model: Any = timm.create_model(f"local-dir:{directory}", pretrained=True)
    merged = [result.supernet.merge(subnet).state_dict() for _, subnet in best]
    for name, tensor in model.state_dict().items():
        mean = torch.stack([state[name].double() for state in merged]).sum(0) / n
        assert torch.equal(tensor, mean.float()), name
    record: dict[str, Any] = json.loads((directory / "subnet.json").read_text())
    assert record["average_of"] == [
        {"trial": trial, "digest": subnet.digest, "weight": 1 / n} for trial, subnet in best
    ]
    assert not {"trial", "generation", "index", "digest"} & record.keys()
    batch_size = result.materials.file.search.batch_size
    for name in ("val", "test"):
        split = result.materials.val if name == "val" else result.materials.test_split(Silent())
        measured = evaluate_model(model, split, batch_size=batch_size)
        assert record[name]["precision"] == "fp32"
        assert record[name]["n_images"] == len(split)
        assert record[name]["top1"] == measured.top1
        assert record[name]["loss"] == pytest.approx(measured.loss, abs=2e-6)
    assert record["val_in_search"] is None
    assert record["largest_logit_difference_val"] < 1e-4
    adapter = load_file(directory / "adapter.safetensors")
    head = result.supernet.head_state()
    n_adapter = sum(tensor.numel() for name, tensor in adapter.items() if name not in head)
    assert record["n_params"]["adapter"] == n_adapter
    return record


def test_a_launch_exports_the_average_that_its_file_asks_for(launched: Launched) -> None:
    result = launched.result
    exported = result.export
    check(launched, exported.directory, 3)
    best = launched.best(3)
    assert exported.trial is None
    assert exported.average_of == tuple(trial for trial, _ in best)
    assert result.winner.candidate.subnet == best[0][1]
    shown = search_output(result)
    assert (shown.columns[0], shown.rows[0][0]) == ("export", "average of 3 subnets")
    assert shown.rows[0][2] == f"{exported.val.loss:.4f}"
    assert shown.document["export"]["average_of"] == list(exported.average_of)
    status = study_output(study_status("tiny", launched.storage))
    assert f"exported  {exported.directory}  (average of 3 subnets)" in status.lines


def test_the_key_does_not_change_what_a_search_finds(launched: Launched, tmp_path: Path) -> None:
    single = launch(study(tmp_path), storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert found(single.outcomes) == found(launched.result.outcomes)
    assert single.export.trial == launched.best(1)[0][0]
    assert single.export.average_of == ()


def test_an_export_takes_the_key_or_another_number(launched: Launched, tmp_path: Path) -> None:
    plain = export("tiny", tmp_path / "plain", storage=launched.storage)
    assert plain.average_of == launched.result.export.average_of
    check(launched, tmp_path / "plain", 3)
    all_of_them = export("tiny", tmp_path / "all", average=N_SUBNETS, storage=launched.storage)
    assert len(all_of_them.average_of) == N_SUBNETS
    check(launched, tmp_path / "all", N_SUBNETS)
    assert f"(average of {N_SUBNETS} subnets; " in export_output(all_of_them).lines[0]
    alone = export("tiny", tmp_path / "alone", average=1, storage=launched.storage)
    winner = launched.best(1)[0][0]
    assert alone.trial == winner
    export("tiny", tmp_path / "by-number", trial=winner, storage=launched.storage)
    for name in ("model.safetensors", "adapter.safetensors", "subnet.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (
            tmp_path / "by-number" / name
        ).read_bytes()


def test_a_resume_tells_averages_apart(launched: Launched, tmp_path: Path) -> None:
    """What stands there is taken if it is the same average; another one, or a single subnet, is
    not, and is not written over it.
    """
    there = launched.result.export.directory
    before = {path.name: path.stat().st_mtime_ns for path in there.iterdir()}
    again = resume("tiny", storage=launched.storage)
    assert again.export.summary() == launched.result.export.summary()
    for n in (1, 2):
        with pytest.raises(ExportError, match="not an empty directory"):
            resume("tiny", overrides=[f"export.average={n}"], storage=launched.storage)
    assert {path.name: path.stat().st_mtime_ns for path in there.iterdir()} == before
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "subnet.json").write_text("[]")
    foreign = f"export.directory='{tmp_path / 'foreign'}'"
    with pytest.raises(ExportError, match="not an empty directory"):
        resume("tiny", overrides=[foreign], storage=launched.storage)
    overrides = ["export.average=2", f"export.directory='{tmp_path / 'two'}'"]
    two = resume("tiny", overrides=overrides, storage=launched.storage)
    assert found(two.outcomes) == found(launched.result.outcomes)
    check(launched, tmp_path / "two", 2)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--average", "2", "--trial", "1"), 2, "--trial and --average exclude each other"),
        (("--average", "1"), 2, "1 is not in the range x>=2"),
        (("--average", "25"), 1, "cannot average 25 subnets: study 'tiny' has 24 evaluated ones"),
    ],
)
def test_what_cannot_be_averaged_is_one_clear_line(
    words: tuple[str, ...],
    status: int,
    told: str,
    launched: Launched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ("export", "tiny", "--out", str(tmp_path / "x"), "--storage", launched.storage)
    monkeypatch.setattr(sys, "argv", ["glora-search", *command, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.lower().startswith("error: ")]
    assert told in line
    assert not (tmp_path / "x").exists()


def test_more_than_the_search_evaluates_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    for n, told in ((25, "average must be at most 24"), (0, "export.average = 0")):
        with pytest.raises(StudyFileError, match=told):
            parse_study(study_table(tmp_path, export={"average": n}), origin="study")
