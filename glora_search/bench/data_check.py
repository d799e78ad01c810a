"""The lists and files of all tasks, checked before anything trains.

A suite trains for hours; a wrong line in the list of its last task shall not be found at the end.
Sources of files check that every file is there and every label is a class, without decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from glora_search.bench.execute import with_domain, with_seed
from glora_search.stages.progress import Progress
from glora_search.stages.sources import make_source
from glora_search.study.data_sections import DomainData, FewShotData, FolderData, VTABData
from glora_search.study.errors import one_line
from glora_search.study.study_file import StudyFile
from supernet.errors import DataError

_FROM_FILES: Final = (VTABData, FolderData, FewShotData, DomainData)


def check_data(
    files: Mapping[str, StudyFile],
    test_sets: Mapping[str, tuple[str, ...]],
    seeds: Iterable[int],
    progress: Progress,
) -> None:
    """Check the lists of all splits that runs will read; sources that draw their images are passed.

    Args:
        files: Task to its study.
        test_sets: Task to the domains that it is tested on, where it is.
        seeds: Of the draws of the data.
        progress: Where to report.

    Raises:
        DataError: The first mistake after the name of its task, and which tasks have others.
    """
    tasks = {task: file for task, file in files.items() if isinstance(file.data, _FROM_FILES)}
    if not tasks:
        return
    wrong: dict[str, DataError] = {}
    with progress.bar("checking the data", len(tasks)) as bar:
        for done, (task, file) in enumerate(tasks.items()):
            bar.update(done, task)
            try:
                _check(file, test_sets.get(task, ()), seeds)
            except DataError as error:
                wrong[task] = error
    if wrong:
        task, first = next(iter(wrong.items()))
        others = [name for name, error in wrong.items() if str(error) != str(first)]
        more = f" (mistakes also in {', '.join(others)})" if others else ""
        raise DataError(f"{task}: {one_line(first)}{more}") from first


def _check(file: StudyFile, test_sets: Iterable[str], seeds: Iterable[int]) -> None:
    drawn = {with_seed(file, seed).to_json(): with_seed(file, seed) for seed in seeds}
    for each in drawn.values():
        make_source(each.data).examples("train")
    first = next(iter(drawn.values()))
    make_source(first.data).examples("val")
    for each in [with_domain(first, name) for name in test_sets] or [first]:
        make_source(each.data).examples("test")
