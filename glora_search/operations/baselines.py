"""What one would have done without a search: one configuration for all layers, trained alone.

A baseline is a search space of a single subnet, trained as a supernet is: with the same recipe,
images and seed. The demo trains its baselines in a second process while the search goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch

from glora_search.stages.prepare import Materials, device_of, prepare
from glora_search.stages.progress import Bar, Silent
from glora_search.study.reading import stored_study
from glora_search.study.study_file import StudyFile
from search_spaces import GLoRASearchError, SearchSpace
from supernet import EpochEnd, Recipe, Supernet, train_supernet

_NOTHING: Final = {support: ["none"] for support in "ABCDE"}
BASELINES: Final[Mapping[str, Mapping[str, list[str]]]] = {
    "linear probe": _NOTHING,
    "uniform LoRA, rank 4": {**_NOTHING, "B": ["lora_4"]},
}

_State = dict[str, np.ndarray[Any, Any]]


class BackgroundBaselines:
    """The baselines of a study, training in a process of their own until `finish`.

    Used as a context: the process ends with it. Its weights come back, and the caller
    evaluates them, so that this process has no need of the test split.

    Args:
        file: The study. Its backbone must have been trained: else two processes would train it.
    """

    def __init__(self, file: StudyFile) -> None:
        self._file = file
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe(duplex=False)
        self._process = spawning.Process(
            target=_train_all, args=(theirs, file.to_json()), daemon=True
        )
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.join()

    def finish(self, bar: Bar) -> dict[str, Supernet]:
        """Wait for the baselines: name to the trained network, a supernet of one subnet.

        Raises:
            GLoRASearchError: Their process ended before they were trained.
        """
        try:
            while not isinstance(message := self._pipe.recv(), dict):
                bar.update(*message)
        except EOFError:
            raise GLoRASearchError("the process that trains the baselines has ended") from None
        return {what: self._load(what, state) for what, state in message.items()}

    def _load(self, what: str, state: _State) -> Supernet:
        supernet = _untrained(prepare(self._file, Silent()), what)
        supernet.load_trainable_state({name: torch.tensor(a) for name, a in state.items()})
        return supernet.eval()


def n_epochs(file: StudyFile) -> int:
    """The epochs of all baselines together."""
    return len(BASELINES) * file.supernet.epochs


def _untrained(materials: Materials, what: str) -> Supernet:
    """The baseline's network before its training; it takes over the backbone of `materials`."""
    file = materials.file
    space = SearchSpace(materials.space.layers, BASELINES[what])
    return Supernet(materials.backbone, space, seed=file.study.seed).to(device_of(file))


def _train_all(pipe: Connection, study: str) -> None:
    """What runs in the other process: progress, then the weights, go into `pipe`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    torch.set_num_threads(1)
    file = stored_study(json.loads(study))
    recipe = Recipe(**file.supernet.recipe_fields())
    states: dict[str, _State] = {}
    for number, what in enumerate(BASELINES):
        materials = prepare(file, Silent())
        supernet = _untrained(materials, what)
        train_supernet(
            supernet,
            materials.train.to(device_of(file)),
            recipe,
            seed=file.study.seed,
            on_epoch=_sender(pipe, number * recipe.epochs),
        )
        states[what] = {
            name: tensor.cpu().numpy() for name, tensor in supernet.trainable_state().items()
        }
    pipe.send(states)


def _sender(pipe: Connection, done_before: int) -> Callable[[EpochEnd], None]:
    return lambda end: pipe.send((done_before + end.epoch, f"loss {end.loss:.3f}"))
