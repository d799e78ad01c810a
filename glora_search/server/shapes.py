"""What answers look like, for the OpenAPI document, and what makes them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import BaseModel, Field

from glora_search.operations.following import StudyView
from glora_search.operations.status import StudyStatus
from glora_search.study.outcomes import Outcome

StudyName = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$", description="The study's name."),
]


class ListedShape(BaseModel):
    """One line of the list of studies; a sweep's name ends with `/sweep`."""

    study: str
    status: str | None = None
    evaluated: int = 0
    failed: int = 0
    planned: int | None = None
    fitness: str = ""
    best: float | None = None
    held_by: str | None = Field(default=None, description="HOST:PID of the process driving it.")
    fault: str | None = Field(default=None, description="Why it cannot be read.")


class ListShape(BaseModel):
    """A page of the list of studies."""

    studies: list[ListedShape]
    total: int = Field(description="How many there are that the filters let through.")
    next: int | None = Field(description="`offset` of the next page; null on the last.")


class BestShape(BaseModel):
    """The winner so far."""

    trial: int
    loss: float | None
    top1: float | None
    n_params: int
    digest: str


class GenerationShape(BaseModel):
    """How one generation came out; the figures are those of its best subnet."""

    generation: int
    evaluated: int
    failed: int
    best_loss: float | None
    best_top1: float | None
    best_n_params: int | None


class FrontMember(BaseModel):
    """A subnet on the front."""

    trial: int
    loss: float
    top1: float
    n_params: int
    digest: str


class FrontStatusShape(BaseModel):
    """What a study of two objectives has found."""

    objectives: list[str]
    hypervolume: float | None = Field(description="Of the front, in the unit of the first.")
    reference: list[float] | None = Field(description="The worst of generation 0 in each.")
    knee: int = Field(description="The trial at the front's knee.")
    trials: list[FrontMember] = Field(description="The front, the second objective rising.")
    hypervolume_by_generation: dict[str, float]


class StatusShape(BaseModel):
    """How far a study is."""

    study: str
    status: str | None = Field(
        description="created, starting, training, searching, exporting or complete."
    )
    running: bool = Field(description="Whether a process drives it, or is starting it.")
    evaluated: int
    failed: int
    planned: int | None
    mode: str
    fitness: str
    held_by: str | None
    best: BestShape | None
    finalists: list[dict[str, Any]]
    generations: list[GenerationShape]
    supernet: str | None
    export: dict[str, Any] | None
    front: FrontStatusShape | None = Field(
        default=None, description="Of a study of two objectives, once a subnet is evaluated."
    )
    position: int = Field(description="`since` of the outcomes that are still to come.")
    progress: str | None = Field(description="The last line of its log; null without one.")


class OutcomeShape(BaseModel):
    """The outcome of one evaluation."""

    trial: int = Field(description="Optuna's number; it grows in the order of recording.")
    generation: int
    index: int
    operator: str
    parents: list[str] = Field(description="Digests.")
    digest: str
    n_params: int
    loss: float | None = Field(description="Nats; null if it failed.")
    top1: float | None = Field(description="A fraction; null if it failed.")
    calibrated_loss: float | None
    eval_s: float = Field(description="Seconds.")
    worker: str
    error_type: str | None
    error: str | None


class OutcomesShape(BaseModel):
    """A page of outcomes."""

    outcomes: list[OutcomeShape]
    next: int = Field(description="`since` of the next page.")
    more: bool = Field(description="Whether the next page has any now.")


class HistoryPoint(BaseModel):
    """The best after so many outcomes, in the order of the search."""

    evaluated: int
    trial: int
    generation: int
    loss: float
    top1: float | None
    n_params: int


class HistoryShape(BaseModel):
    """How a search went."""

    generations: list[GenerationShape]
    improvements: list[HistoryPoint]


class FrontShape(BaseModel):
    """The Pareto front."""

    measure: str
    outcomes: list[OutcomeShape]


class SubnetShape(BaseModel):
    """A subnet with its configuration."""

    outcome: OutcomeShape
    layers: dict[str, dict[str, str]] = Field(description="Layer to support tensor to token.")


class NamedShape(BaseModel):
    """A study, and how it stands after a request."""

    study: str
    status: str | None


MAX_CHANGES: Final = 100
MAX_CHANGE_LENGTH: Final = 2000


class ChangesShape(BaseModel, extra="forbid"):
    """What a resume changes."""

    overrides: list[Annotated[str, Field(max_length=MAX_CHANGE_LENGTH)]] = Field(
        max_length=MAX_CHANGES,
        description="`section.key=value`, as `glora-search resume --set` takes it.",
    )


class ValidShape(BaseModel):
    """A study file without mistakes."""

    study: str
    resolved: dict[str, Any] = Field(description="With the default of every key that is absent.")


def outcome_table(trial: int, outcome: Outcome) -> dict[str, Any]:
    """An outcome as OutcomeShape."""
    candidate = outcome.candidate
    return {
        "trial": trial,
        "generation": candidate.generation,
        "index": candidate.index,
        "operator": candidate.operator,
        "parents": list(candidate.parents),
        "digest": candidate.subnet.digest,
        "n_params": candidate.n_params,
        "loss": outcome.loss,
        "top1": outcome.top1,
        "calibrated_loss": outcome.calibrated_loss,
        "eval_s": outcome.eval_s,
        "worker": outcome.worker,
        "error_type": outcome.error_type,
        "error": outcome.error,
    }


def subnet_table(view: StudyView, trial: int) -> dict[str, Any]:
    """A trial as SubnetShape."""
    outcome = view.trials[trial]
    layers = outcome.candidate.subnet.layers
    return {
        "outcome": outcome_table(trial, outcome),
        "layers": {name: dict(layer.items()) for name, layer in layers.items()},
    }


def status_table(
    status: StudyStatus, *, position: int, running: bool, progress: str | None
) -> dict[str, Any]:
    """A status as StatusShape."""
    document = status.to_json()
    return {**document, "running": running, "position": position, "progress": progress}
