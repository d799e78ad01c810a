"""A sweep as a table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Final

from glora_search.cli.output import Output
from glora_search.recording import SweepSummary
from glora_search.study.sweep_section import SWEPT
from glora_search.study.sweep_trial import SweepTrial

_COLUMNS: Final = ("trial", *SWEPT, "trained", "val loss", "val top-1", "seconds", "")
LAUNCH: Final = ("glora-search", "launch", "STUDY.toml")


def sweep_output(found: SweepSummary, launch: Sequence[str] = LAUNCH) -> Output:
    """All trials, the best first, and how to launch with the best recipe.

    Args:
        found: What is recorded.
        launch: The command that launches the study.
    """
    ranked = sorted(found.trials.items(), key=lambda item: item[1].rank)
    best = found.best
    words = [] if best is None else [f"supernet.{k}={v!r}" for k, v in best[1].recipe.items()]
    document = {
        "sweep": found.name,
        "status": found.attributes.get("status"),
        "planned": found.attributes.get("planned"),
        "held_by": found.held_by,
        "trials": [_document(number, trial) for number, trial in ranked],
        "best": None if best is None else _document(*best),
        "set": words,
    }
    counts = [
        f"{sum(trial.state == state for trial in found.trials.values())} {state}"
        for state in ("complete", "stopped", "failed")
    ]
    lines = []
    if found.held_by is not None:
        lines.append(f"driven by {found.held_by}")
    if best is not None:
        overrides = [part for word in words for part in ("--set", word)]
        lines.append(f"best      trial {best[0]}: mean val loss {best[1].loss:.4f}")
        lines.append(f"launch    {shlex.join([*launch, *overrides])}")
    lines += [f"trial {n} failed: {t.error_type}: {t.error}" for n, t in ranked if t.error]
    return Output(
        document=document,
        title=f"{found.name}: {len(ranked)} of {document['planned']} trials; {', '.join(counts)}",
        columns=_COLUMNS if ranked else (),
        rows=[_row(number, trial) for number, trial in ranked],
        lines=lines,
    )


def _document(number: int, trial: SweepTrial) -> dict[str, Any]:
    return {
        "trial": number,
        "state": trial.state,
        **trial.recipe,
        "epochs_trained": trial.epochs,
        "loss": trial.loss,
        "top1": trial.top1,
        "losses": {str(percent): loss for percent, loss in trial.losses.items()},
        "train_s": trial.train_s,
        "worker": trial.worker,
        "error_type": trial.error_type,
        "error": trial.error,
    }


def _row(number: int, trial: SweepTrial) -> tuple[str, ...]:
    return (
        str(number),
        *(f"{trial.recipe[name]:{'d' if name == 'epochs' else '.3g'}}" for name in SWEPT),
        f"{max(trial.losses, default=0)} %",
        "-" if trial.loss is None else f"{trial.loss:.4f}",
        "-" if trial.top1 is None else f"{trial.top1:.3f}",
        f"{trial.train_s:.1f}",
        trial.state,
    )
