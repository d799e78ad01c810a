"""The state of a study in words: what a person has to know first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from glora_search.operations.serving import CREATED, STARTING

_STAGES: Final = {  # what happens in it, and its name
    STARTING: ("it is being started", "its start"),
    "training": ("the supernet trains", "the training of the supernet"),
    "searching": ("subnets are evaluated", "the search"),
    "exporting": ("the export is made", "the export"),
}
_KEPT: Final = "No process drives it; what was done is kept, and it can be resumed."


@dataclass(frozen=True)
class State:
    """The state of a study.

    Args:
        css: The class that colours it: running, finished, stopped, failed, waiting.
        word: What stands on its badge.
        told: A sentence that says what it means.
    """

    css: str
    word: str
    told: str

    @property
    def is_over(self) -> bool:
        """Whether nothing will change by itself."""
        return self.css != "running"


def state_of(
    status: str | None,
    *,
    held_by: str | None,
    failed: int = 0,
    max_failures: int | None = None,
    fault: str | None = None,
    said: str | None = None,
) -> State:
    """The state of a study.

    Args:
        status: The stage that the database says it has reached.
        held_by: The process that drives it now, or is starting it; None if none does.
        failed: How many evaluations failed.
        max_failures: At how many the search ends; None where that is not stored.
        fault: Why the study cannot be read; None if it can.
        said: The last line of its log; None where that is not known.
    """
    if fault is not None or status == "damaged":
        return State("failed", "damaged", fault or "What is stored with it cannot be read.")
    happens, stage = _STAGES.get(status or "", ("it is at work", "its work"))
    error = said if said is not None and said.lower().startswith("error:") else None
    if held_by is not None:
        word = status if status is not None and status in _STAGES else "running"
        told = f"Running: {happens}. Driven by {held_by}."
        return State("running", word, f"{told} Last in its log: {said}" if said else told)
    if status == "complete":
        return State("finished", "finished", "Finished: searched to its end and exported.")
    if status == CREATED:
        if error is not None:
            return State("failed", "not started", f"Its start ended with an {error}")
        return State("waiting", "created", "Created, and not started yet.")
    if max_failures is not None and failed >= max_failures:
        told = (
            f"Ended because {failed:,} evaluations failed; search.max_failures is "
            f"{max_failures:,}. What was evaluated is kept."
        )
        return State("failed", "failed", told)
    if error is not None:
        told = f"{stage.capitalize()} ended with an {error.rstrip('.')}. {_KEPT}"
        return State("failed", "failed", told)
    return State("stopped", "stopped", f"Stopped during {stage}. {_KEPT}")
