"""Train once: what training of an identity gives is kept in a file that is named after it.

So a second study over the same network, data, recipe and seed does not train again, and a training
that was interrupted goes on from its checkpoint beside that file.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from glora_search.progress import Progress
from supernet import Checkpointing, EpochEnd
from supernet.checkpoints import save_checkpoint, set_aside_if_damaged

_log = logging.getLogger(__name__)


def cached_path(folder: Path, identity: Mapping[str, str]) -> Path:
    """The file in `folder` for that identity, whether or not it is there yet."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{key}.safetensors"


def train_once(
    path: Path,
    identity: Mapping[str, str],
    train: Callable[[Checkpointing, Callable[[EpochEnd], None]], None],
    state: Callable[[], Mapping[str, Tensor]],
    *,
    what: str,
    epochs: int,
    every_s: float,
    progress: Progress,
) -> None:
    """Train and write `path`, unless it is there.

    What is there and damaged is set aside, and made again: it would be the same.

    Args:
        path: From `cached_path`.
        identity: What the result depends on: fingerprints, recipe, seed.
        train: Trains in place, with the checkpointing and the progress that it is given.
        state: The tensors to keep, once trained.
        what: The step's name, for the progress bar.
        epochs: Of the training.
        every_s: Seconds between two checkpoints.
        progress: Where to report to.

    Raises:
        CheckpointError: A file cannot be read or written.
        TrainingDivergedError: The loss stopped being finite.
    """
    unfinished = path.with_suffix(".training.safetensors")
    for file in (path, unfinished):
        if aside := set_aside_if_damaged(file):
            _log.warning("%s is damaged; it is made again, and kept as %s", file, aside.name)
    if path.exists():
        return
    with progress.bar(what, epochs) as bar:
        train(
            Checkpointing(path=unfinished, every_s=every_s, identity=identity),
            lambda end: bar.update(end.epoch, f"loss {end.loss:.3f}"),
        )
    save_checkpoint(path, state(), identity)
    unfinished.unlink(missing_ok=True)
