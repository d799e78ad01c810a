"""The codec between an Outcome and the user attributes of its trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from sys import intern
from typing import Any, Final, TypeAlias

from glora_search.study.errors import StorageError
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import SubnetConfig

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Place: TypeAlias = tuple[int, int]

MARK: Final = "generation"
"""The attribute that marks a trial as ours; others may have added trials to the study."""

KEYS: Final = (
    MARK,
    "index",
    "operator",
    "parents",
    "digest",
    "n_params",
    "eval_s",
    "worker",
    "loss",
    "top1",
    "calibrated_loss",
    "price",
    "error_type",
    "error",
)
"""All attributes that `encode` writes and `decode` reads."""


def encode(outcome: Outcome) -> dict[str, JSON]:
    """The user attributes of the trial that records `outcome`.

    Raises:
        StorageError: A number is not finite, which JSON cannot hold; or an outcome that did not
            fail lacks a number, and Optuna accepts no such trial.
    """
    candidate = outcome.candidate
    attributes: dict[str, JSON] = {
        MARK: candidate.generation,
        "index": candidate.index,
        "operator": candidate.operator,
        "parents": list(candidate.parents),
        "digest": candidate.subnet.digest,
        "n_params": candidate.n_params,
        "eval_s": _finite(outcome, "eval_s"),
        "worker": outcome.worker,
    }
    if candidate.price:
        attributes["price"] = candidate.price
    if not outcome.failed:
        attributes["loss"] = _finite(outcome, "loss")
        attributes["top1"] = _finite(outcome, "top1")
        if outcome.calibrated_loss is not None:
            attributes["calibrated_loss"] = _finite(outcome, "calibrated_loss")
    elif outcome.loss is not None or outcome.top1 is not None:
        raise StorageError(
            f"{_named(outcome)}: a failed outcome ({outcome.error_type}) has neither loss nor "
            f"top1; got loss={outcome.loss!r}, top1={outcome.top1!r}"
        )
    else:
        attributes["error_type"] = outcome.error_type
        attributes["error"] = outcome.error
    return attributes


def decode(attributes: Mapping[str, Any], subnet: SubnetConfig) -> Outcome:
    """The inverse of `encode`, given the subnet of the trial's parameters.

    Raises:
        StorageError: An attribute is missing or has a wrong type, or the recorded digest is not
            that of `subnet`.
    """
    check_digest(subnet, str(attributes.get("digest")))
    try:
        return Outcome(
            candidate=Candidate(
                generation=int(attributes[MARK]),
                index=int(attributes["index"]),
                operator=intern(str(attributes["operator"])),
                # A few subnets have most of the children: `intern` keeps each digest once.
                parents=tuple(intern(str(parent)) for parent in attributes["parents"]),
                subnet=subnet,
                n_params=int(attributes["n_params"]),
                price=float(attributes.get("price", 0.0)),
            ),
            loss=_optional_float(attributes.get("loss")),
            top1=_optional_float(attributes.get("top1")),
            calibrated_loss=_optional_float(attributes.get("calibrated_loss")),
            eval_s=float(attributes["eval_s"]),
            worker=intern(str(attributes["worker"])),
            error_type=attributes.get("error_type"),
            error=attributes.get("error"),
        )
    except KeyError as error:
        raise StorageError(f"it lacks the user attribute {error}") from error
    except (TypeError, ValueError) as error:
        raise StorageError(f"its user attributes cannot be read: {error}") from error


def check_digest(subnet: SubnetConfig, recorded: str) -> SubnetConfig:
    """The subnet, if its digest is the one that was recorded.

    Raises:
        StorageError: It is not.
    """
    if subnet.digest != recorded:
        raise StorageError(
            f"its parameters have the digest {subnet.digest[:12]}, recorded is {recorded[:12]}"
        )
    return subnet


def unrecorded(outcomes: Iterable[Outcome], recorded: Mapping[Place, str]) -> list[Outcome]:
    """Those of `outcomes` whose place is still free. Each place keeps its first outcome.

    An interrupted search may evaluate a candidate twice. Seconds and worker of the two outcomes
    differ, so only their subnets have to be the same.

    Args:
        outcomes: What is to be recorded.
        recorded: (generation, index) to the digest of the subnet recorded there.

    Raises:
        StorageError: A place is taken by another subnet.
    """
    now: dict[Place, str] = {}
    fresh = []
    for outcome in outcomes:
        place, digest = outcome.candidate.place, outcome.candidate.subnet.digest
        taken = recorded.get(place) or now.get(place)
        if taken is None:
            now[place] = digest
            fresh.append(outcome)
        elif taken != digest:
            raise StorageError(
                f"{_named(outcome)} is recorded as subnet {taken[:12]} and now offered as "
                f"{digest[:12]}: this is not the search that the study was started with"
            )
    return fresh


def _named(outcome: Outcome) -> str:
    return f"generation {outcome.candidate.generation}, index {outcome.candidate.index}"


def _finite(outcome: Outcome, name: str) -> float:
    value = getattr(outcome, name)
    if value is None or not math.isfinite(value):
        raise StorageError(
            f"{_named(outcome)}: {name} must be a finite number; got {value!r}; record an "
            "evaluation without numbers as a failed one, with error_type and error"
        )
    return float(value)


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)
