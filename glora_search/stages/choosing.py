"""Choose what a study exports: one trial, trained on or not, or one network of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from glora_search.recording import StudyRecord
from glora_search.study.errors import SubnetNotFoundError
from glora_search.study.finalists import Finalist, best_trials, from_attributes
from glora_search.study.outcomes import Outcome
from glora_search.study.picking import Pick, of_digest, picked
from glora_search.study.place_sections import ExportSection, FinetuneKeep
from supernet.errors import ExportError


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """How a subnet is trained on before it is exported.

    Args:
        epochs: How many.
        lr: The peak learning rate.
        keep: `best` is the epoch with the lowest val loss; `average` trains at a rate that stays
            high, and keeps the mean of the weights over epochs and runs.
        runs: How often it is trained on, each time from the inherited weights.
        batch_size: Images of a step; None for that of [supernet].
    """

    epochs: int
    lr: float
    keep: FinetuneKeep = "best"
    runs: int = 1
    batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be exported of a study.

    Args:
        trial: Optuna's number of a subnet; None for the winner.
        digest: The first characters of a subnet's digest, instead of its number.
        pick: Which subnet, instead of the winner: see `Pick`.
        max_params: What the one subnet may have at most; None for any size.
        average: Of how many of the best subnets the weights are averaged; 1 for one subnet.
        soup: Of how many of the best a greedy soup is made; 0 for none.
        finetuning: Of the one subnet; None where it is exported as it is.
        calibrate: Whether a temperature is fitted on the validation split and put into the head.
    """

    trial: int | None = None
    digest: str | None = None
    pick: Pick | None = None
    max_params: int | None = None
    average: int = 1
    soup: int = 0
    finetuning: Finetuning | None = None
    calibrate: bool = False


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A trial that is to be exported, or several of which one network is made.

    Args:
        trials: Optuna's numbers, best first, and their records; of a soup, the candidates.
        is_soup: Whether only those are averaged that do not raise the val loss.
        finetuning: Of a single trial that is trained on first.
        calibrate: As in `Wanted`.
        final: The figures in float32 of a single trial, where the search measured in bf16 and it
            was a finalist.
    """

    trials: Mapping[int, Outcome]
    is_soup: bool = False
    finetuning: Finetuning | None = None
    calibrate: bool = False
    final: Finalist | None = None

    @property
    def best(self) -> Outcome:
        """The record of the first."""
        return next(iter(self.trials.values()))

    @property
    def trial(self) -> int | None:
        """The number of a single trial; None where there are several."""
        return next(iter(self.trials)) if len(self.trials) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """The choice as JSON; two exports of a study with equal JSON are the same export."""
        return {
            "digests": [outcome.candidate.subnet.digest for outcome in self.trials.values()],
            "is_soup": self.is_soup,
            "finetuning": None if self.finetuning is None else asdict(self.finetuning),
            "calibrate": self.calibrate,
        }


def wanted_by(
    section: ExportSection,
    *,
    trial: int | None = None,
    digest: str | None = None,
    pick: Pick | None = None,
    max_params: int | None = None,
    average: int | None = None,
    soup: int | None = None,
    finetune_epochs: int | None = None,
    finetune_lr: float | None = None,
    finetune_keep: FinetuneKeep | None = None,
    finetune_runs: int | None = None,
    finetune_batch_size: int | None = None,
    calibrate: bool | None = None,
) -> Wanted:
    """What to export, from the section [export] of a study and the arguments of a call.

    A call that names a subnet, an average, a soup or fine-tuning replaces what the section says of
    averages and soups.

    Args:
        section: Of the study.
        trial: As in `Wanted`.
        digest: Likewise.
        pick: Likewise; it goes together with `max_params`.
        max_params: Likewise.
        average: As in `Wanted`; None for the section's.
        soup: Likewise.
        finetune_epochs: Of the one subnet; None for the section's, 0 for none.
        finetune_lr: None for the section's.
        finetune_keep: Likewise.
        finetune_runs: Likewise; more than one are averaged.
        finetune_batch_size: Likewise.
        calibrate: Likewise.

    Raises:
        ExportError: Two that exclude each other, or a number that is not accepted.
    """
    given = {
        "trial": trial,
        "digest": digest,
        "pick": pick,
        "max_params": max_params,
        "average": average,
        "soup": soup,
    }
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1 and asked != ["pick", "max_params"]:
        raise ExportError(f"{asked[0]} and {asked[1]} exclude each other; give one of them")
    if finetune_keep not in (None, *get_args(FinetuneKeep)):
        raise ExportError(
            f"finetune_keep = {finetune_keep!r}; accepted: {', '.join(get_args(FinetuneKeep))}"
        )
    for key, count in (
        ("finetune_runs", finetune_runs),
        ("finetune_batch_size", finetune_batch_size),
    ):
        if count is not None and count < 1:
            raise ExportError(f"{key} = {count}; accepted: 1 and more")
    if (finetune_epochs or 0) < 0 or not (finetune_lr is None or finetune_lr > 0):
        raise ExportError(
            f"cannot fine-tune for {finetune_epochs} epochs at a learning rate of {finetune_lr}; "
            "accepted: epochs from 0 on, and a rate above 0"
        )
    of_section = not asked and not finetune_epochs
    n_average = average if average is not None else section.average if of_section else 1
    n_soup = soup if soup is not None else section.soup if of_section else 0
    several = next((n for n, is_it in (("average", n_average != 1), ("soup", n_soup)) if is_it), "")
    epochs = finetune_epochs
    if epochs is None:
        epochs = 0 if several else section.finetune_epochs
    if several and epochs:
        raise ExportError(
            f"finetune_epochs and {several} exclude each other: one subnet is trained on"
        )
    for key, value in (
        ("finetune_lr", finetune_lr),
        ("finetune_keep", finetune_keep),
        ("finetune_runs", finetune_runs),
        ("finetune_batch_size", finetune_batch_size),
    ):
        if value is not None and not epochs:
            raise ExportError(f"{key} needs finetune_epochs: nothing is fine-tuned without them")
    finetuning = Finetuning(
        epochs=epochs,
        lr=section.finetune_lr if finetune_lr is None else finetune_lr,
        keep=finetune_keep or section.finetune_keep,
        runs=finetune_runs or (1 if finetune_keep == "best" else section.finetune_runs),
        batch_size=finetune_batch_size or section.finetune_batch_size,
    )
    if finetuning.keep == "best" and finetuning.runs > 1:
        raise ExportError(
            f"finetune_runs = {finetuning.runs}: several runs are averaged; give "
            'finetune_keep = "average" as well'
        )
    return Wanted(
        trial=trial,
        digest=digest,
        pick=pick,
        max_params=max_params,
        average=n_average,
        soup=n_soup,
        finetuning=finetuning if epochs else None,
        calibrate=section.calibrate if calibrate is None else calibrate,
    )


def choose(record: StudyRecord, trials: Mapping[int, Outcome], wanted: Wanted) -> Chosen:
    """The trials of a study that are to be exported.

    Args:
        record: The study.
        trials: All of its trials, by Optuna's number.
        wanted: What is to be exported.

    Raises:
        ExportError: There is no such trial, or it failed; or there are not so many; or a knee of
            one objective is wanted.
    """
    if wanted.soup:
        several = _best(record, trials, wanted.soup, "make a soup of")
        return Chosen(trials=several, is_soup=True, calibrate=wanted.calibrate)
    if wanted.average != 1:
        several = _best(record, trials, wanted.average, "average")
        return Chosen(trials=several, calibrate=wanted.calibrate)
    finalists = from_attributes(record.attributes)
    trial = wanted.trial
    try:
        if wanted.digest is not None:
            trial = of_digest(record.name, trials, wanted.digest)
        if trial is None:
            trial = picked(
                record.name,
                trials,
                record.objectives,
                finalists,
                pick=wanted.pick,
                max_params=wanted.max_params,
            )
    except SubnetNotFoundError as error:
        raise ExportError(str(error)) from error
    outcome = trials.get(trial)
    if outcome is None:
        raise ExportError(
            f"study {record.name!r} has no trial {trial}; it has {len(trials)}, numbered from 0"
        )
    if outcome.failed:
        raise ExportError(f"trial {trial} failed ({outcome.error_type}): nothing to export")
    final = next((f for f in finalists if f.trial == trial), None)
    return Chosen(
        trials={trial: outcome},
        finetuning=wanted.finetuning,
        calibrate=wanted.calibrate,
        final=final,
    )


def _best(
    record: StudyRecord, trials: Mapping[int, Outcome], n: int, to_do: str
) -> dict[int, Outcome]:
    best = best_trials(trials, record.objectives, from_attributes(record.attributes))
    if not 2 <= n <= len(best):
        raise ExportError(
            f"cannot {to_do} {n} subnets: study {record.name!r} has {len(best)} evaluated ones; "
            "accepted: from 2 to that number"
        )
    return {number: trials[number] for number in best[:n]}
