"""What pages show of studies, kept as long as the studies stay as they were read.

Drawing 10,000 subnets takes half a second, and every open page asks again every few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from glora_search.operations.following import StudyView
from glora_search.reporting.snapshot import Snapshot, snapshot_of
from glora_search.server.page.views import study_view


@dataclass(frozen=True, eq=False)
class ShownStudy:
    """A study as it was read, and what a page shows of it.

    Args:
        snapshot: The study.
        planned: How many evaluations it asks for; None where that is not stored.
    """

    snapshot: Snapshot
    planned: int | None

    @cached_property
    def values(self) -> dict[str, Any]:
        """As of `study_view`."""
        return study_view(self.snapshot, self.planned)


class ShownStudies:
    """The shown studies of one process. What is shown goes with what was read."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[StudyView, dict[str | None, ShownStudy]] = WeakKeyDictionary()

    def of(self, view: StudyView, held_by: str | None) -> ShownStudy:
        """A study.

        Args:
            view: As it was read; the same object where nothing has changed.
            held_by: Who drives it, or is starting it; None where nobody does.
        """
        kept = self._kept.setdefault(view, {})
        if held_by not in kept:
            snapshot = snapshot_of(view.record, view.trials, view.attributes, holder=held_by)
            kept[held_by] = ShownStudy(snapshot, view.status.planned)
        return kept[held_by]
