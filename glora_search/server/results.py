"""Routes of results: outcomes, history, Pareto front, winner, subnets."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from glora_search.server.problems import RefusedError, told
from glora_search.server.service import Served
from glora_search.server.shapes import (
    FrontShape,
    HistoryShape,
    OutcomesShape,
    StudyName,
    SubnetShape,
    outcome_table,
    subnet_table,
)

router = APIRouter(tags=["results"], responses=told(409))


@router.get("/studies/{name}/outcomes", response_model=OutcomesShape, summary="Outcomes")
def outcomes(
    name: StudyName,
    service: Served,
    since: Annotated[int, Query(ge=0, le=10**12, description="The lowest number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Outcomes in the order in which they were recorded. Whoever asks again with `since` set to
    `next` misses none.
    """
    view = service.view(name)
    fresh = (item for item in view.trials.items() if item[0] >= since)
    page = list(islice(fresh, limit))
    following = page[-1][0] + 1 if page else max(since, view.position)
    return {
        "outcomes": [outcome_table(number, outcome) for number, outcome in page],
        "next": following,
        "more": following < view.position,
    }


@router.get("/studies/{name}/history", response_model=HistoryShape, summary="How a search went")
def history(name: StudyName, service: Served) -> dict[str, Any]:
    """The best subnet of each generation, and each outcome that was better than all before."""
    view = service.view(name)
    improvements = []
    for evaluated, number in view.improvements:
        outcome = view.trials[number]
        improvements.append(
            {
                "evaluated": evaluated,
                "trial": number,
                "generation": outcome.candidate.generation,
                "loss": outcome.loss,
                "top1": outcome.top1,
                "n_params": outcome.candidate.n_params,
            }
        )
    return {
        "generations": [vars(generation) for generation in view.status.generations],
        "improvements": improvements,
    }


@router.get("/studies/{name}/front", response_model=FrontShape, summary="The Pareto front")
def front(
    name: StudyName,
    service: Served,
    measure: Annotated[Literal["loss", "top1", "calibrated-loss"], Query()] = "loss",
) -> dict[str, Any]:
    """The subnets that no other beats in the measure with as few parameters, parameters rising."""
    view = service.view(name)
    found = [outcome_table(number, view.trials[number]) for number in view.front(measure)]
    return {"measure": measure, "outcomes": found}


@router.get("/studies/{name}/winner", response_model=SubnetShape, summary="The best subnet")
def winner(name: StudyName, service: Served) -> dict[str, Any]:
    """The best subnet so far; where finalists were scored again, by their new figures."""
    view = service.view(name)
    number = view.winner
    if number is None:
        raise RefusedError(404, f"study {name!r} has no winner yet: nothing is evaluated")
    return subnet_table(view, number)


@router.get("/studies/{name}/subnets/{digest}", response_model=SubnetShape, summary="A subnet")
def subnet(
    name: StudyName,
    digest: Annotated[
        str, Path(pattern="^[0-9a-f]{8,64}$", description="At least its first 8 characters.")
    ],
    service: Served,
) -> dict[str, Any]:
    """A subnet by its digest. One that was evaluated twice is shown with its first outcome."""
    view = service.view(name)
    found = view.with_digest(digest)
    if not found:
        raise RefusedError(404, f"study {name!r} has no subnet {digest!r}")
    if len({view.trials[number].candidate.subnet.digest for number in found}) > 1:
        raise RefusedError(409, f"study {name!r} has several subnets {digest!r}; give more of it")
    return subnet_table(view, found[0])
