"""Which trained supernets and backbones a study takes from another: those of the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_study import study

from glora_search.stages.prepare import prepare
from glora_search.stages.progress import Silent
from glora_search.stages.training import supernet_file


def path_of(folder: Path, **data: Any) -> Path:
    file = study(folder)
    changed = file.data.model_copy(update=data)
    return supernet_file(prepare(file.model_copy(update={"data": changed}), Silent()))[0]


def test_another_normalisation_is_another_training(tmp_path: Path) -> None:
    """The fingerprint of images does not see it: they are normalised when they are used."""
    plain = path_of(tmp_path)
    assert path_of(tmp_path) == plain
    assert path_of(tmp_path, mean=(0.3,), std=(0.2,)) != plain
    assert path_of(tmp_path, cache_gb=1.0) == plain
