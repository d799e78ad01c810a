"""Which one subnet of a study somebody means: by its digest, as a pick of the front, or by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from glora_search.study.errors import SubnetNotFoundError
from glora_search.study.finalists import Finalist, winner_of
from glora_search.study.fronts import front, knee_of
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome

Pick = Literal["knee", "loss", "top1"]
"""`knee`: of the front of two objectives, where less of one costs most of the other. `loss` and
`top1`: the best in that."""


def of_digest(study: str, trials: Mapping[int, Outcome], digest: str) -> int:
    """The number of the trial of a subnet.

    Args:
        study: Its name.
        trials: All of the study, by Optuna's number.
        digest: The first characters of the subnet's digest.

    Raises:
        SubnetNotFoundError: None begins so, or several.
    """
    found = [
        n for n, o in trials.items() if digest and o.candidate.subnet.digest.startswith(digest)
    ]
    if len(found) != 1:
        raise SubnetNotFoundError(
            f"study {study!r} has {len(found)} subnets whose digest begins with {digest!r}; "
            "give the beginning of one, as `glora-search status` and the report show it"
        )
    return found[0]


def picked(
    study: str,
    trials: Mapping[int, Outcome],
    objectives: Objectives,
    finalists: Sequence[Finalist],
    *,
    pick: Pick | None,
    max_params: int | None,
) -> int:
    """The number of the subnet that is wanted of those that are small enough: the winner among
    them, if nothing else is said.

    Args:
        study: Its name.
        trials: All of the study, by Optuna's number.
        objectives: Of the study.
        finalists: Of the study.
        pick: See `Pick`.
        max_params: Adapter parameters that the subnet may have at most; None for any number.

    Raises:
        SubnetNotFoundError: Nothing is evaluated, or nothing that is so small.
        InvalidConfigError: A knee of one objective.
    """
    if all(outcome.failed for outcome in trials.values()):
        raise SubnetNotFoundError(f"study {study!r} has no evaluated subnet yet; resume it first")
    small = {
        n: o for n, o in trials.items() if max_params is None or o.candidate.n_params <= max_params
    }
    if pick == "knee":
        on_front = front(small, objectives)
        if on_front:
            return knee_of(small, on_front, objectives)
    else:
        if pick not in (None, objectives.first.name):
            objectives, finalists = Objectives.of(pick), ()
        within = [finalist for finalist in finalists if finalist.trial in small]
        if (trial := winner_of(small, objectives, within)) is not None:
            return trial
    least = min(o.candidate.n_params for o in trials.values() if not o.failed)
    raise SubnetNotFoundError(
        f"study {study!r} has no evaluated subnet of at most {max_params:,} parameters; the "
        f"smallest has {least:,}: raise max_params"
    )
