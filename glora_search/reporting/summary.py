"""The head of a report in words and numbers: what was done, what came out, how sure it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from glora_search.reporting.formatting import (
    count,
    loss,
    percent,
    percent_with_error,
    plural,
    seconds,
    standard_error,
)
from glora_search.reporting.snapshot import Snapshot
from glora_search.study.finalists import Finalist
from glora_search.study.objectives import LOSS, Objectives


@dataclass(frozen=True, kw_only=True)
class KeyNumber:
    """A number in large type.

    Args:
        label: What it is, with its split.
        value: The number.
        note: One line below it.
    """

    label: str
    value: str
    note: str


def summary_sentences(snapshot: Snapshot) -> list[str]:
    """The report in a few sentences; each number says which split it is from."""
    if not snapshot.trials:
        return ["No subnet of this study has been evaluated yet."]
    told = [
        _evaluated(snapshot),
        *_mode(snapshot),
        *_front(snapshot),
        *_winner(snapshot),
        *_test(snapshot),
    ]
    return [*told, *_missing_classes(snapshot)]


def key_numbers(snapshot: Snapshot) -> list[KeyNumber]:
    """The winner's numbers, and how many subnets it won against; empty without a winner."""
    if snapshot.winner is None:
        return []
    best = snapshot.complete[snapshot.winner]
    facts = snapshot.facts
    found = [
        KeyNumber(
            label="winner’s val top-1",  # noqa: RUF001
            value=percent(best.top1, facts.n_val),
            note=_error_note(best.top1, facts.n_val),
        ),
        KeyNumber(label="winner’s val loss", value=loss(best.loss), note="nats"),  # noqa: RUF001
        KeyNumber(
            label="adapter parameters",
            value=count(best.candidate.n_params),
            note=_head_note(snapshot),
        ),
        KeyNumber(
            label="subnets evaluated",
            value=count(len(snapshot.complete)),
            note=f"{plural(len(snapshot.trials) - len(snapshot.complete), 'failure')}",
        ),
    ]
    export = facts.export
    if export is not None and snapshot.winner_is_exported and export.test is not None:
        found.insert(
            1,
            KeyNumber(
                label="winner’s test top-1",  # noqa: RUF001
                value=percent(export.test.top1, export.test.n_images),
                note=_error_note(export.test.top1, export.test.n_images),
            ),
        )
    return found


def _evaluated(snapshot: Snapshot) -> str:
    n_failed = len(snapshot.trials) - len(snapshot.complete)
    workers = {outcome.worker for outcome in snapshot.trials.values()}
    duration_s = sum(outcome.eval_s for outcome in snapshot.trials.values())
    if not snapshot.complete:
        return (
            f"{plural(n_failed, 'evaluation')} in {plural(snapshot.n_generations, 'generation')} "
            f"failed, and none succeeded."
        )
    failed = "none failed" if not n_failed else f"{plural(n_failed, 'evaluation')} failed"
    was = "was" if len(snapshot.complete) == 1 else "were"
    return (
        f"{plural(len(snapshot.complete), 'subnet')} {was} evaluated in "
        f"{plural(snapshot.n_generations, 'generation')}, {failed}; that took "
        f"{seconds(duration_s)} of work by {plural(len(workers), 'worker')}. "
        f"The search went by {' and '.join(_aims(snapshot.objectives))}."
    )


def _front(snapshot: Snapshot) -> list[str]:
    if snapshot.knee is None:
        return []
    marked = (snapshot.front[0], snapshot.front[-1], snapshot.knee)
    small, large, knee = (snapshot.trials[number].candidate.n_params for number in marked)
    return [
        f"On the front are {plural(len(snapshot.front), 'subnet')}, which no other beats in both, "
        f"of {count(small)} to {count(large)} adapter parameters; its knee is trial "
        f"{snapshot.knee} with {count(knee)}. The one winner is named by "
        f"{snapshot.objectives.first.title}."
    ]


def _aims(objectives: Objectives) -> Iterator[str]:
    for objective in objectives.each:
        better = "higher" if objective.higher_is_better else "lower"
        tied = objective is objectives.first and objective is not LOSS
        ties = "; ties go to the lower val loss" if tied else ""
        yield f"{objective.title} ({better} is better{ties})"


def _mode(snapshot: Snapshot) -> list[str]:
    if not snapshot.facts.is_steady_state:
        return []
    return [
        "The search was steady-state: each subnet was made when a worker came free, and a "
        "generation is a population’s worth of them in that order. A second search with the same "  # noqa: RUF001
        "seed would find others."
    ]


def _winner(snapshot: Snapshot) -> list[str]:
    if snapshot.winner is None:
        return ["There is no winner: no evaluation gave numbers."]
    best, n_val = snapshot.complete[snapshot.winner], snapshot.facts.n_val
    candidate = best.candidate
    finalists = snapshot.facts.finalists
    if finalists and finalists[0].held_out is not None:
        n_val = None  # the search saw a part of them
    images = "" if n_val is None else f" on {n_val:,} images"
    told = [
        f"The winner is trial {snapshot.winner}, made by {candidate.operator} in generation "
        f"{candidate.generation}: {plural(candidate.n_params, 'adapter parameter')}, val loss "
        f"{loss(best.loss)}, val top-1 {percent_with_error(best.top1, n_val)}{images}."
    ]
    if snapshot.n_alike:
        one = snapshot.n_alike == 1
        told.append(
            f"{plural(snapshot.n_alike, 'other subnet')} {'reaches' if one else 'reach'} its val "
            f"top-1 to within one standard error: by top-1 alone the val split cannot tell them "
            f"apart."
        )
    if finalists and finalists[0].trial == snapshot.winner:
        first = finalists[0]
        told.append(
            f"{_scored_again(first, len(finalists))}, the winner is the best: val loss "
            f"{loss(first.loss)}, val top-1 "
            f"{percent_with_error(first.top1, first.held_out or n_val)} there."
        )
    told.append("Its val figures flatter it, because it was chosen by them.")
    return told


def _scored_again(finalist: Finalist, n: int) -> str:
    """How many finalists there were, and what was new about their scores."""
    if finalist.held_out is None:
        return (
            f"The search measured in bf16; of its {plural(n, 'finalist')}, scored again in float32"
        )
    return (
        f"Of the {plural(n, 'finalist')} of the search, scored again on "
        f"{plural(finalist.held_out, 'val image')} that it had not seen"
    )


def _test(snapshot: Snapshot) -> list[str]:
    export = snapshot.facts.export
    if export is None or export.test is None:
        return []
    what = "it" if snapshot.winner_is_exported else f"{export.what}, which was exported,"
    images = "" if export.test.n_images is None else f", {export.test.n_images:,} images"
    return [
        f"On the test split{images}, by which nothing was chosen, {what} has a top-1 of "
        f"{percent_with_error(export.test.top1, export.test.n_images)}."
    ]


def _missing_classes(snapshot: Snapshot, most: int = 10) -> list[str]:
    facts, told = snapshot.facts, []
    for split, names in (("validation", facts.missing_in_val), ("test", facts.missing_in_test)):
        if names:
            shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
            count = "1 class" if len(names) == 1 else f"{len(names)} classes"
            told.append(
                f"The {split} split has no image of {count} of the training split ({shown}): its "
                "figures say nothing of them."
            )
    return told


def _error_note(top1: float | None, n_images: int | None) -> str:
    error = standard_error(top1, n_images)
    if error is None:
        return "number of images not recorded"
    return f"± {100 * error:.1f} on {n_images:,} images"


def _head_note(snapshot: Snapshot) -> str:
    export = snapshot.facts.export
    head = export.n_params.get("head") if export else None
    return "without the head" if head is None else f"and {head:,} of the head"
