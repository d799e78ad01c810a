"""The winner trained on, from a study file that was interrupted meanwhile to a network of timm."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from tiny_study import found, study

from glora_search.cli.commands import main
from glora_search.cli.study_tables import export_output, search_output, study_output
from glora_search.operations.exporting import export
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.operations.status import study_status
from glora_search.stages.progress import Silent
from glora_search.stages.training import supernet_file
from supernet import evaluate_model
from supernet.adapter_bank import AdapterBank
from supernet.backbones import load_checkpoint
from supernet.errors import ExportError, TrainingDivergedError
from supernet.export import FILES

pytestmark = pytest.mark.slow
EPOCHS = 4


class Interrupting(Silent):
    """Ctrl-C after the second epoch of a fine-tuning; counts its epochs otherwise."""

    def __init__(self, *, at: int | None = None, epochs: int = EPOCHS) -> None:
        self.at, self._total = at, epochs
        self.epochs: list[int] = []
        self._tuning = False

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Interrupting]:
        self._tuning = what == "fine-tuning the subnet"
        assert not self._tuning or total == self._total
        yield self
        self._tuning = False

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        if self._tuning:
            self.epochs.append(done)
            if done == self.at:
                raise KeyboardInterrupt


@dataclass(frozen=True)
class Launched:
    """A finished study whose file asks for fine-tuning; it was interrupted in its midst."""

    folder: Path
    result: SearchResult
    supernet_before: bytes

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder / 'studies.db'}"

    @property
    def supernet_file(self) -> Path:
        return supernet_file(self.result.materials)[0]

    @property
    def tuned_files(self) -> list[Path]:
        return sorted((self.folder / "runs" / "finetuned").iterdir())


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("finetuned")
    file = study(folder, export={"finetune_epochs": EPOCHS, "finetune_lr": 5e-3})
    storage = f"sqlite:///{folder / 'studies.db'}"
    with pytest.raises(KeyboardInterrupt):
        launch(file, storage=storage, progress=Interrupting(at=2))
    assert not file.export_directory.exists()
    (supernet,) = (folder / "runs" / "supernets").iterdir()
    before = supernet.read_bytes()
    progress = Interrupting()
    result = resume("tiny", storage=storage, progress=progress)
    assert progress.epochs == list(range(1, EPOCHS + 1))
    return Launched(folder, result, before)


def same_files(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def test_the_export_is_the_winner_trained_on(launched: Launched) -> None:
    """It loads with timm; its figures, before and after, are what is measured by hand."""
    result, exported = launched.result, launched.result.export
    subnet = result.winner.candidate.subnet
    record: dict[str, Any] = json.loads((exported.directory / "subnet.json").read_text())
    tuned = record["finetuning"]
    assert (tuned["epochs"], tuned["lr"]) == (EPOCHS, 5e-3)
    assert 0 < tuned["kept_epoch"] <= EPOCHS, "else the tests show nothing"
    assert record["digest"] == subnet.digest
    model: Any = timm.create_model(f"local-dir:{exported.directory}", pretrained=True)
    file, val = result.materials.file, result.materials.val
    after = evaluate_model(model, val, batch_size=file.search.batch_size)
    before = evaluate_model(result.supernet.merge(subnet), val, batch_size=file.search.batch_size)
    assert (record["val"]["loss"], record["val"]["top1"]) == (after.loss, after.top1)
    assert tuned["val_before"]["loss"] == before.loss
    assert tuned["val_before"]["top1"] == before.top1
    assert after.loss < before.loss
    test = evaluate_model(
        model, result.materials.test_split(Silent()), batch_size=file.search.batch_size
    )
    assert record["test"]["top1"] == test.top1
    assert record["val_in_search"] is None
    assert record["largest_logit_difference_val"] < 1e-4


def test_the_adapter_on_the_backbone_gives_the_logits_of_the_merged_network(
    launched: Launched,
) -> None:
    """Bit for bit where the bank adds up in float64, as the export does."""
    materials, directory = launched.result.materials, launched.result.export.directory
    checkpoint = materials.file.backbone.checkpoint
    assert checkpoint is not None
    bank = AdapterBank(load_checkpoint(materials.architecture, checkpoint), dtype=torch.float64)
    bank.add("tuned", directory)
    bank.attach("tuned")
    model: Any = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
    (images, _), *_ = materials.val.batches(60)
    with torch.no_grad():
        assert torch.equal(bank(images), model(images))


def test_the_supernet_is_what_it_was(launched: Launched) -> None:
    """Its file, and the one in memory: exports of other trials are those of an untuned study."""
    assert launched.supernet_file.read_bytes() == launched.supernet_before
    stored = load_file(launched.supernet_file)
    state = launched.result.supernet.trainable_state()
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())


def test_the_keys_do_not_change_what_a_search_finds(launched: Launched, tmp_path: Path) -> None:
    single = launch(study(tmp_path), storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert found(single.outcomes) == found(launched.result.outcomes)
    plain = export("tiny", tmp_path / "plain", finetune_epochs=0, storage=launched.storage)
    assert plain.finetuning is None
    assert same_files(tmp_path / "plain", single.export.directory)


def test_a_second_export_takes_what_was_tuned_and_anew_it_is_the_same(
    launched: Launched, tmp_path: Path
) -> None:
    """What an interruption left behind is of no consequence."""
    there = launched.result.export.directory
    (tuned,) = launched.tuned_files
    progress = Interrupting()
    export("tiny", tmp_path / "again", storage=launched.storage, progress=progress)
    assert progress.epochs == []
    assert same_files(tmp_path / "again", there)
    first = load_file(tuned)
    tuned.unlink()
    export("tiny", tmp_path / "anew", storage=launched.storage, progress=progress)
    assert progress.epochs == list(range(1, EPOCHS + 1))
    assert same_files(tmp_path / "anew", there)
    anew = load_file(tuned)
    assert first.keys() == anew.keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in anew.items())


def test_a_resume_tells_finetunings_apart(launched: Launched) -> None:
    """What stands there is taken if it was tuned alike; otherwise it is not written over."""
    there = launched.result.export.directory
    before = {path.name: path.stat().st_mtime_ns for path in there.iterdir()}
    again = resume("tiny", storage=launched.storage)
    assert again.export.summary() == launched.result.export.summary()
    for override in ("finetune_epochs=0", "finetune_epochs=2", "finetune_lr=1e-4"):
        with pytest.raises(ExportError, match="not an empty directory"):
            resume("tiny", overrides=[f"export.{override}"], storage=launched.storage)
    assert {path.name: path.stat().st_mtime_ns for path in there.iterdir()} == before
    assert len(launched.tuned_files) == 1, "what cannot be written is not trained either"


def test_an_export_from_before_the_later_keys_is_known(launched: Launched) -> None:
    """Its subnet.json tells neither what was kept, nor of runs, batches and calibration."""
    path = launched.result.export.directory / "subnet.json"
    text = path.read_text()
    record = json.loads(text)
    for key in ("keep", "runs", "batch_size"):
        del record["finetuning"][key]
    del record["calibration"]
    path.write_text(json.dumps(record))
    try:
        again = resume("tiny", storage=launched.storage)
    finally:
        path.write_text(text)
    assert again.export.summary() == launched.result.export.summary()


def test_it_is_told(launched: Launched) -> None:
    result = launched.result
    kept = result.export.finetuning
    assert kept is not None
    what = f"trial {result.export.trial}, fine-tuned: epoch {kept.kept_epoch} of {EPOCHS}"
    shown = search_output(result)
    assert (shown.columns[0], shown.rows[0][0]) == ("export", what)
    assert shown.document["export"]["finetuning"]["kept_epoch"] == kept.kept_epoch
    lines = export_output(result.export).lines
    assert f"val loss {kept.val_before.loss:.4f} before, {result.export.val.loss:.4f}" in lines[1]
    status = study_output(study_status("tiny", launched.storage))
    assert f"exported  {result.export.directory}  ({what})" in status.lines


def test_another_trial_and_a_rate_that_is_too_high(
    launched: Launched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line; a rate that helps nothing leaves the inherited weights."""
    export("tiny", tmp_path / "plain", trial=3, finetune_epochs=0, storage=launched.storage)
    command = ["export", "tiny", "--trial", "3", "--out", str(tmp_path / "tuned")]
    options = ["--finetune-epochs", "1", "--finetune-lr", "30", "--storage", launched.storage]
    monkeypatch.setattr(sys, "argv", ["glora-search", *command, *options])
    main()
    record = json.loads((tmp_path / "tuned" / "subnet.json").read_text())
    assert record["finetuning"]["kept_epoch"] == 0
    assert record["val"]["loss"] == record["finetuning"]["val_before"]["loss"]
    for name in ("model.safetensors", "adapter.safetensors"):
        plain, tuned = (load_file(tmp_path / d / name) for d in ("plain", "tuned"))
        assert plain.keys() == tuned.keys()
        assert all(torch.equal(plain[key], tuned[key]) for key in plain)
    with pytest.raises(TrainingDivergedError, match=r"export\.finetune_lr = 1e\+30"):
        export(
            "tiny", tmp_path / "x", finetune_epochs=2, finetune_lr=1e30, storage=launched.storage
        )
    assert not (tmp_path / "x").exists()


def test_the_mean_over_epochs_calibrated(launched: Launched, tmp_path: Path) -> None:
    """Another file of another fine-tuning; the same classes as without the calibration, at a lower
    val loss; told everywhere.
    """
    storage, files = launched.storage, len(launched.tuned_files)
    asked: Any = {"finetune_epochs": 3, "finetune_keep": "average", "finetune_runs": 2}
    first = Interrupting(epochs=6)
    plain = export("tiny", tmp_path / "plain", **asked, storage=storage, progress=first)
    assert first.epochs == list(range(1, 7))
    assert plain.finetuning is not None
    assert (plain.finetuning.keep, plain.finetuning.runs) == ("average", 2)
    assert plain.calibration is None
    assert len(launched.tuned_files) == files + 1
    again = Interrupting()
    out = tmp_path / "calibrated"
    found = export("tiny", out, **asked, calibrate=True, storage=storage, progress=again)
    assert again.epochs == []
    assert found.calibration is not None
    assert found.calibration.val_before == plain.val
    assert found.val.top1 == plain.val.top1
    assert found.val.loss < plain.val.loss
    assert found.logit_difference < 1e-4
    what = f"trial {found.trial}, fine-tuned: average of 2 runs of 3 epochs, calibrated"
    assert found.what == what
    lines = export_output(found).lines
    assert f"{plain.val.loss:.4f} after" in lines[1], "of the fine-tuning alone"
    assert f"val loss {plain.val.loss:.4f} before, {found.val.loss:.4f} after" in lines[2]
    record = json.loads((tmp_path / "calibrated" / "subnet.json").read_text())
    assert record["calibration"]["temperature"] == found.calibration.temperature
    materials = launched.result.materials
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'calibrated'}", pretrained=True)
    measured = evaluate_model(model, materials.val, batch_size=materials.file.search.batch_size)
    assert measured.loss == found.val.loss


def test_a_study_whose_winner_is_calibrated(tmp_path: Path) -> None:
    """The figures of the search stay those of the search; a resume knows the export again."""
    file = study(tmp_path, export={"calibrate": True})
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    result = launch(file, storage=storage)
    assert result.export.calibration is not None
    assert result.winner.loss is not None
    assert result.export.val.loss < result.winner.loss
    assert result.export.val.top1 == result.winner.top1
    assert search_output(result).columns[0] == "export"
    assert resume("tiny", storage=storage).export.summary() == result.export.summary()
    with pytest.raises(ExportError, match="not an empty directory"):
        resume("tiny", overrides=["export.calibrate=false"], storage=storage)
    tuned = ("finetune_epochs=2", 'finetune_keep="average"', "finetune_runs=2")
    keys = (*tuned, "finetune_batch_size=20", f'directory="{tmp_path / "tuned"}"')
    overrides = [f"export.{key}" for key in keys]
    first = resume("tiny", overrides=overrides, storage=storage).export
    assert resume("tiny", overrides=overrides, storage=storage).export.summary() == first.summary()
    status = study_output(study_status("tiny", storage))
    assert any("calibrated" in line for line in status.lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--finetune-epochs", "2", "--average", "2"), "--finetune-epochs and --average exclude"),
        (("--finetune-epochs", "2", "--soup", "2"), "--finetune-epochs and --soup exclude"),
        (("--trial", "2", "--soup", "2"), "--trial and --soup exclude"),
        (("--average", "2", "--soup", "2"), "--average and --soup exclude"),
        (("--finetune-lr", "0"), "0.0 is not in the range x>0"),
    ],
)
def test_options_that_exclude_each_other_are_one_clear_line(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["glora-search", "export", "tiny", "--out", str(tmp_path / "x"), *words]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
