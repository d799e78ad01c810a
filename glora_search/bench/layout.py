"""How the figures of tasks are put together: means of groups, their mean, and the flat mean.

A mean is told only where all of its tasks have a figure: a mean over those that happened to succeed
would flatter a method that failed on a hard one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Means:
    """The means of one method; None where a task lacks its figure.

    Args:
        groups: Group to the mean over its tasks.
        of_groups: Mean of the group means; None also where the suite does not tell it.
        of_tasks: The flat mean over all tasks.
    """

    groups: dict[str, float | None]
    of_groups: float | None
    of_tasks: float | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tasks of a comparison, and which means are told.

    Args:
        tasks: Those compared, in the order of the table.
        whole: All tasks of the suite: more than `tasks` where a subset was asked for.
        groups: Name to the tasks of the whole suite.
        mean_of_groups: Whether the mean of the group means is a figure of the suite.
    """

    tasks: tuple[str, ...]
    whole: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mean_of_groups: bool = False

    @property
    def complete(self) -> bool:
        """Whether all tasks of the suite are compared."""
        return set(self.whole) <= set(self.tasks)

    @property
    def present(self) -> dict[str, tuple[str, ...]]:
        """Group to those of its tasks that are compared; without groups that have none."""
        found = {
            name: tuple(task for task in self.tasks if task in members)
            for name, members in self.groups.items()
        }
        return {name: tasks for name, tasks in found.items() if tasks}

    def means(self, figures: Mapping[str, float]) -> Means:
        """The means of one method.

        Args:
            figures: Task to its figure, of those that have one.
        """
        groups = {name: _mean(figures, tasks) for name, tasks in self.present.items()}
        known = [mean for mean in groups.values() if mean is not None]
        told = self.mean_of_groups and groups and len(known) == len(groups)
        return Means(
            groups=groups,
            of_groups=fmean(known) if told else None,
            of_tasks=_mean(figures, self.tasks),
        )

    def to_json(self) -> dict[str, Any]:
        """Which tasks a mean is over, for programs."""
        return {
            "complete": self.complete,
            "all_tasks": list(self.whole),
            "groups": {name: list(tasks) for name, tasks in self.present.items()},
        }


def _mean(figures: Mapping[str, float], tasks: Iterable[str]) -> float | None:
    found = [figures.get(task) for task in tasks]
    known = [figure for figure in found if figure is not None]
    return fmean(known) if known and len(known) == len(found) else None
