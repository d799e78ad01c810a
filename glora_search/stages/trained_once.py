"""Train once: the result of a training is kept in a file that is named after its inputs.

So a second study over the same network, data, recipe and seed does not train again, and a training
that was interrupted goes on from its checkpoint beside that file. Both are kept among the study's
artifacts as well, and fetched from there where they are not here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from glora_search.cluster.artifacts import Artifacts
from glora_search.stages.progress import Progress
from supernet import Checkpointing, EpochEnd
from supernet.checkpoints import save_checkpoint, set_aside_if_damaged

_log = logging.getLogger(__name__)

_NOWHERE: Final = Artifacts(url=None)
_PUTTING_SHARE: Final = 0.1


def cached_path(folder: Path, identity: Mapping[str, str]) -> Path:
    """The file in `folder` for that identity, whether or not it is there yet."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{key}.safetensors"


def artifact_name(path: Path) -> str:
    """What the file at a `cached_path` is called among the artifacts."""
    return f"{path.parent.name}/{path.name}"


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
    artifacts: Artifacts = _NOWHERE,
) -> None:
    """Train and write `path`, unless it is there, or among the artifacts.

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
        artifacts: Where both files are kept besides; what cannot be put there is only logged.

    Raises:
        CheckpointError: A file cannot be read or written.
        ArtifactError: A file is not here, and the artifacts cannot be looked into.
        TrainingDivergedError: The loss stopped being finite.
    """
    unfinished = path.with_suffix(".training.safetensors")
    for file in (path, unfinished):
        _set_aside(file)
        if path.exists() or file.exists():
            continue
        if artifacts.fetch(artifact_name(file), file):
            progress.note(f"fetched {artifacts.at(artifact_name(file))}")
            _set_aside(file)
    if path.exists():
        artifacts.try_to_put(path, artifact_name(path))
        return
    put_now_and_then = _NowAndThen(artifacts, unfinished)
    with progress.bar(what, epochs) as bar:

        def on_epoch(end: EpochEnd) -> None:
            put_now_and_then()
            bar.update(end.epoch, f"loss {end.loss:.3f}")

        train(Checkpointing(path=unfinished, every_s=every_s, identity=identity), on_epoch)
    save_checkpoint(path, state(), identity)
    artifacts.try_to_put(path, artifact_name(path), anew=True)
    artifacts.remove(artifact_name(unfinished))
    unfinished.unlink(missing_ok=True)


def _set_aside(file: Path) -> None:
    if aside := set_aside_if_damaged(file):
        _log.warning("%s is damaged; it is made again, and kept as %s", file, aside.name)


class _NowAndThen:
    """Puts a file that changes among the artifacts, in at most a tenth of the time."""

    def __init__(self, artifacts: Artifacts, file: Path) -> None:
        self._artifacts, self._file = artifacts, file
        self._seen = self._state()
        self._not_before_s = 0.0

    def __call__(self) -> None:
        begun_s, state = time.monotonic(), self._state()
        if state == self._seen or begun_s < self._not_before_s:
            return
        self._artifacts.try_to_put(self._file, artifact_name(self._file), anew=True)
        self._seen, ended_s = state, time.monotonic()
        self._not_before_s = ended_s + (ended_s - begun_s) / _PUTTING_SHARE

    def _state(self) -> tuple[int, int] | None:
        """Of a file that is replaced as a whole: another one after each replacement."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns
