"""Backbones that are trained because there are no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import ARGS, MODEL, study_table

from glora_search import launch
from glora_search.recording import Database
from glora_search.stages import prepare
from glora_search.study.reading import parse_study
from supernet import Architecture

pytestmark = pytest.mark.slow


def test_a_backbone_that_was_trained_as_vlora_is_plain_and_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks differ by low-rank increments; the search takes it as any backbone. The study is
    stored with the epochs that follow from it, so that another rule does not change it.
    """
    monkeypatch.setattr(prepare, "PATHS_A_CHOICE", 20)
    pretrain = {
        "method": "vlora",
        "data": {"source": "digits", "classes": [0, 2, 3], "n_train": 60, "n_val": 0},
        "epochs": 2,
        "batch_size": 20,
        "warmup_epochs": 0,
        "lr": 1e-2,
    }
    table = study_table(tmp_path, backbone={"pretrain": pretrain})
    del table["backbone"]["checkpoint"]
    table["supernet"]["epochs"] = "auto"
    file = parse_study(table, origin="test")
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    result = launch(file, storage=storage)
    assert result.export is not None
    with Database.open(storage, create=False) as database:
        stored = database.open_study(file.study.name).attributes["study"]
    assert stored["supernet"]["epochs"] == result.materials.file.supernet.epochs > 0
    (weights,) = (tmp_path / "runs" / "backbones").glob("*.safetensors")
    state = load_file(weights)
    plain = Architecture(MODEL, 3, ARGS).build()
    assert {key: t.shape for key, t in state.items()} == {
        key: t.shape for key, t in plain.state_dict().items()
    }
    change = state["blocks.1.mlp.fc1.weight"] - state["blocks.0.mlp.fc1.weight"]
    assert 1 <= torch.linalg.matrix_rank(change, atol=1e-5) <= 8
