"""What each worker has done for a study, from its outcomes."""

from __future__ import annotations

from dataclasses import dataclass

from glora_search.reporting.trials import Trials


@dataclass(frozen=True)
class WorkerLine:
    """A line of the table of workers.

    Args:
        name: Who evaluated, such as `host:pid`.
        done: Evaluations that gave figures.
        failed: Those that failed.
        mean_s: Seconds an evaluation took, on average.
        share: Its part of the seconds of all workers, a fraction.
    """

    name: str
    done: int
    failed: int
    mean_s: float
    share: float


def worker_lines(trials: Trials) -> list[WorkerLine]:
    """A line for each worker, the busiest first."""
    by_name: dict[str, list[tuple[bool, float]]] = {}
    for outcome in trials.values():
        by_name.setdefault(outcome.worker, []).append((outcome.failed, outcome.eval_s))
    whole = sum(outcome.eval_s for outcome in trials.values()) or 1.0
    lines = []
    for name, found in by_name.items():
        spent_s = sum(seconds for _, seconds in found)
        failed = sum(failed for failed, _ in found)
        lines.append(
            WorkerLine(name, len(found) - failed, failed, spent_s / len(found), spent_s / whole)
        )
    return sorted(lines, key=lambda line: (-line.share, line.name))
