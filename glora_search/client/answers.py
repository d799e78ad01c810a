"""What a server answers that people read most, as dictionaries whose keys have types.

The server's shapes have the same fields; a test compares them.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class Best(TypedDict):
    """The winner so far."""

    trial: int
    loss: float | None
    top1: float | None
    n_params: int
    digest: str


class Generation(TypedDict):
    """How one generation came out; the figures are those of its best subnet."""

    generation: int
    evaluated: int
    failed: int
    best_loss: float | None
    best_top1: float | None
    best_n_params: int | None


class FrontMember(TypedDict):
    """A subnet on the front."""

    trial: int
    loss: float
    top1: float
    n_params: int
    digest: str


class FrontStatus(TypedDict):
    """What a study of two objectives has found."""

    objectives: list[str]
    hypervolume: float | None
    reference: list[float] | None
    knee: int
    trials: list[FrontMember]
    hypervolume_by_generation: dict[str, float]


class Status(TypedDict):
    """How far a study is."""

    study: str
    status: str | None
    running: bool
    evaluated: int
    failed: int
    planned: int | None
    mode: str
    fitness: str
    held_by: str | None
    best: Best | None
    finalists: list[dict[str, Any]]
    generations: list[Generation]
    supernet: str | None
    export: dict[str, Any] | None
    front: FrontStatus | None
    position: int
    progress: str | None


class Outcome(TypedDict):
    """The outcome of one evaluation."""

    trial: int
    generation: int
    index: int
    operator: str
    parents: list[str]
    digest: str
    n_params: int
    loss: float | None
    top1: float | None
    calibrated_loss: float | None
    eval_s: float
    worker: str
    error_type: str | None
    error: str | None


class Export(TypedDict):
    """An export of one subnet."""

    trial: int
    digest: str
    n_params: int
    state: Literal["absent", "running", "ready", "failed"]
    problem: str | None


class ExportFile(TypedDict):
    """A file of an export."""

    name: str
    bytes: int


class Readiness(TypedDict):
    """Whether studies can be read and started."""

    ready: bool
    database: str
    ray: str
