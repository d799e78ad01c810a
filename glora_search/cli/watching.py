"""Verbs that take long: progress on stderr, and interruptions that leave a study resumable."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from glora_search.cli.output import tell
from search_spaces.errors import GLoRASearchError

if TYPE_CHECKING:
    from glora_search.stages.progress import Progress


@contextlib.contextmanager
def watched(how_to_go_on: Callable[[], str]) -> Iterator[Progress]:
    """Progress on stderr. SIGINT and SIGTERM end the block with exit status 130.

    What libraries print goes to stderr as well: Ray tells of lost workers on stdout, which is for
    results.

    Args:
        how_to_go_on: After an interruption: what is recorded, and how to go on.
    """
    from glora_search.cli.interruption import Interruptible
    from glora_search.cli.progress_bars import for_stderr

    try:
        with contextlib.redirect_stdout(sys.stderr), Interruptible(for_stderr()) as progress:
            yield progress
    except KeyboardInterrupt:
        tell(f"interrupted{how_to_go_on()}")
        sys.exit(130)


def study_so_far(name: str, storage: str | None) -> str:
    """What is recorded of a study, and how to go on with it."""
    from glora_search.recording import Database
    from glora_search.recording.storage_url import resolve_storage

    try:
        with Database.open(resolve_storage(storage), create=False) as database:
            done = database.open_study(name).tally().n_complete
            option = f" --storage '{database.shown}'" if storage else ""
    except GLoRASearchError:
        return " before anything was recorded; launch again"
    return f"; {done} subnets are recorded. Go on with: glora-search resume {name}{option}"


def sweep_so_far(name: str, storage: str | None) -> str:
    """What is recorded of a sweep."""
    from glora_search.operations import sweep_status

    try:
        done = len(sweep_status(name, storage).trials)
    except GLoRASearchError:
        return " before anything was recorded"
    return f"; trials recorded: {done}. The same command goes on"
