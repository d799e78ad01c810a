"""The offline suite: tasks that any machine can draw, and one of real images, with one backbone.

The drawn tasks stand for VTAB's structured and specialised groups: 800 training, 200 validation and
5,000 test images each. The digits 5-9 are real: 100, 200 and 596 images, split anew by each seed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from glora_search.study.errors import StudyFileError
from glora_search.study.reading import parse_study
from glora_search.study.study_file import StudyFile
from supernet.data import DRAWN_TASKS, PRETRAINING_TASK

OFFLINE_TASKS: Final = (*(task for task in DRAWN_TASKS if task != PRETRAINING_TASK), "digits")
"""All tasks of the suite."""

QUICK_TASKS: Final = ("count", "position", "orientation", "texture", "distance", "cluttered")
"""Those of the quick mode."""


def offline_suite(
    tasks: Sequence[str], directory: Path, *, workers: int, supernet_epochs: int | None = None
) -> dict[str, StudyFile]:
    """The study of each task.

    Args:
        tasks: Names of OFFLINE_TASKS.
        directory: Where the pretrained backbone and the supernets are kept.
        workers: Runs at a time; 0 for one after the other in this process.
        supernet_epochs: Of the methods that train a supernet; None for the suite's own number.

    Raises:
        StudyFileError: An unknown task, one that comes twice, or none.
    """
    unknown = [task for task in tasks if task not in OFFLINE_TASKS]
    if unknown or not tasks or len(set(tasks)) < len(tasks):
        raise StudyFileError(
            f"tasks = {', '.join(tasks) or 'none'}: each once, of {', '.join(OFFLINE_TASKS)}"
        )
    text = resources.files("glora_search.bench").joinpath("offline.toml").read_text()
    files = {}
    for task in tasks:
        table = tomllib.loads(text)
        table["study"]["directory"] = str(directory.absolute())
        table["data"] = {"source": "digits"} if task == "digits" else table["data"] | {"task": task}
        table["cluster"]["workers"] = workers
        if supernet_epochs is not None:
            table["supernet"]["epochs"] = supernet_epochs
        files[task] = parse_study(table, origin="the offline suite")
    return files
