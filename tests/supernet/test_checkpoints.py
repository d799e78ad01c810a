"""Checkpoints: written whole or not at all, and refused where they are not what they should be."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from supernet import checkpoints
from supernet.checkpoints import load_checkpoint, save_checkpoint, set_aside_if_damaged
from supernet.errors import CheckpointError

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b.c/d": torch.tensor(True),
    "half": torch.ones(4, dtype=torch.bfloat16),
}
METADATA = {"backbone": "0123", "space": "{}"}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Names, types, shapes, values and metadata, in directories that were not there."""
    path = tmp_path / "new" / "folders" / "c.safetensors"
    save_checkpoint(path, TENSORS, METADATA)
    tensors, metadata = load_checkpoint(path, expected=METADATA)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_views_and_trained_tensors_are_saved_by_value(tmp_path: Path) -> None:
    """A transposed view is not contiguous, a parameter carries a graph."""
    path = tmp_path / "c.safetensors"
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    save_checkpoint(path, {"view": TENSORS["a"].T, "column": parameter[:, 1]}, {})
    tensors, _ = load_checkpoint(path)
    assert torch.equal(tensors["view"], TENSORS["a"].T)
    assert torch.equal(tensors["column"], parameter[:, 1])


def test_it_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    """So anybody can look into it."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, METADATA)
    with safe_open(path, framework="np") as opened:
        assert opened.metadata() == METADATA
        assert set(opened.keys()) == set(TENSORS)


@pytest.mark.parametrize("step", ["writing", "flushing", "renaming"])
def test_a_failed_write_leaves_the_old_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at any moment costs the new checkpoint, never the last one."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, METADATA)
    old = path.read_bytes()

    def written_in_part(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half of")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if step == "writing":
        monkeypatch.setattr(checkpoints, "save_file", written_in_part)
    elif step == "flushing":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*c\.safetensors.*No space left"):
        save_checkpoint(path, {"a": torch.zeros(1)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    load_checkpoint(path, expected=METADATA)


def test_a_path_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    """Below a file, or where a directory stands."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for path in (tmp_path / "file" / "c.safetensors", tmp_path / "folder"):
        with pytest.raises(CheckpointError, match="cannot write"):
            save_checkpoint(path, TENSORS, METADATA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "text"
    assert (tmp_path / "folder" / "sub").is_dir()


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_refused(part: float, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, METADATA)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match=r"c\.safetensors' is damaged or no checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_a_truncated_file_can_be_set_aside(part: float, tmp_path: Path) -> None:
    """For whoever can make it again; an older one that was damaged makes room."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, METADATA)
    assert set_aside_if_damaged(path) is None
    content = path.read_bytes()
    for _ in range(2):
        path.write_bytes(content[: int(part * len(content))])
        aside = set_aside_if_damaged(path)
        assert aside is not None
        assert list(tmp_path.iterdir()) == [aside]
    assert set_aside_if_damaged(path) is None


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    torch.save(TENSORS, path)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        load_checkpoint(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "c.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            load_checkpoint(path)


def test_metadata_that_differs_is_named_entry_by_entry(tmp_path: Path) -> None:
    """One that is absent too; one that nobody asked for does not matter."""
    path = tmp_path / "c.safetensors"
    long = "0123456789" * 10
    save_checkpoint(path, TENSORS, {**METADATA, "recipe": long, "more": "x"})
    load_checkpoint(path, expected=METADATA)
    expected = {"backbone": "4567", "space": "{}", "recipe": long[::-1], "seed": "3"}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, expected=expected)
    message = str(caught.value)
    assert "backbone: 0123 there, 4567 here" in message
    assert "recipe: 012345678901… there, 987654321098… here" in message
    assert "seed: absent there, 3 here" in message
    assert "space" not in message
    assert "more" not in message


def test_a_file_without_metadata_is_not_taken_for_any(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    assert load_checkpoint(path)[1] == {}
    with pytest.raises(CheckpointError, match="backbone: absent there, 0123 here"):
        load_checkpoint(path, expected=METADATA)


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    """A supernet is shared by the workers of a cluster; safetensors alone would shut them out."""
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "x.safetensors", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640
