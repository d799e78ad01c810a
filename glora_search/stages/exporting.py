"""Export what was chosen: make one network of it, verify, measure on the test split, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glora_search.recording import StudyRecord
from glora_search.stages.choosing import Chosen
from glora_search.stages.described import described
from glora_search.stages.export_record import (
    CalibrationRecord,
    Export,
    Figures,
    FinetuningRecord,
    optional_table,
)
from glora_search.stages.finetuning import finetune_or_load
from glora_search.stages.held_out import search_splits
from glora_search.stages.prepare import Materials, missing_note
from glora_search.stages.progress import Progress
from glora_search.stages.provenance import versions
from glora_search.study.attributes import MISSING_IN_TEST
from search_spaces import SubnetConfig
from supernet import Supernet, evaluate_model
from supernet.average_export import average_export
from supernet.data import Split, missing_classes
from supernet.errors import DataError, ExportError
from supernet.export import Exportable, check_export_directory, subnet_export, write_export
from supernet.formats import Besides
from supernet.soup import greedy_soup
from supernet.temperature import temperature_of, with_temperature

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Made:
    """The one network that was made of what was chosen.

    Args:
        exportable: To be written.
        average_of: The numbers of the trials that are averaged in it; none for a single one.
        finetuning: How its subnet was trained on.
        calibration: How it was calibrated.
    """

    exportable: Exportable
    average_of: tuple[int, ...] = ()
    finetuning: FinetuningRecord | None = None
    calibration: CalibrationRecord | None = None


def export_chosen(
    record: StudyRecord,
    chosen: Chosen,
    out: Path,
    materials: Materials,
    supernet: Supernet,
    progress: Progress,
    *,
    formats: Sequence[str],
) -> Export:
    """Merge what was chosen, compare it with the unmerged one, measure it on test, and write it.

    Before that comes fine-tuning or the choice of a soup, and then the calibration.

    Args:
        record: The study.
        chosen: What `choose` gave.
        out: A directory that is new or empty.
        materials: Of the study.
        supernet: Trained.
        progress: Where to report to.
        formats: In which it is written besides timm's: see `supernet.formats`.

    Raises:
        ExportError: Merged and unmerged logits differ by more than export.tolerance, `out` cannot
            be written, or a further format differs from the network.
        TrainingDivergedError: The loss of fine-tuning stopped being finite.
    """
    file = materials.file
    check_export_directory(out)  # before anything slow
    made = _make(supernet, chosen, materials, progress)
    exportable = made.exportable
    difference = exportable.logit_difference(materials.val)
    if not difference <= file.export.tolerance:
        raise ExportError(
            f"the merged model differs from the unmerged one by {difference:.2g} in a logit of the "
            f"validation images; export.tolerance is {file.export.tolerance:g}. Nothing was written"
        )
    attributes = record.attributes
    val, val_in_search = _val_figures(record, chosen, materials, exportable.network)
    test, missing_in_test = _test_evaluation(materials, exportable.network, progress)
    n_head = sum(t.numel() for t in supernet.head_state().values())
    n_params = {
        "adapter": sum(t.numel() for t in exportable.adapter.values()) - n_head,
        "head": n_head,
        "merged_model": sum(p.numel() for p in exportable.network.parameters()),
    }
    told = {
        "study": record.name,
        **_identity(chosen, made),
        "calibration": optional_table(made.calibration),
        **described(materials),
        "val": asdict(val),
        "val_in_search": optional_table(val_in_search),
        "test": optional_table(test),
        "n_params": n_params,
        MISSING_IN_TEST: list(missing_in_test),
        "largest_logit_difference_val": difference,
        "seed": attributes["seed"],
        "fingerprints": attributes["fingerprints"],
        "versions": versions(),
    }
    with progress.bar("writing the export", 1 + len(formats)) as bar:
        written = write_export(
            out,
            exportable,
            architecture=materials.architecture,
            preprocessing=materials.preprocessing,
            class_names=materials.val.class_names,
            record=told,
            besides=Besides(names=formats, split=materials.val, on_written=bar.update),
        )
        bar.update(1 + len(formats))
    return Export(
        directory=out,
        trial=chosen.trial,
        average_of=made.average_of,
        soup_of=tuple(chosen.trials) if chosen.is_soup else (),
        finetuning=made.finetuning,
        calibration=made.calibration,
        outcome=chosen.best,
        val=val,
        val_in_search=val_in_search,
        test=test,
        logit_difference=difference,
        n_params=n_params,
        missing_in_test=missing_in_test,
        formats=written,
    )


def _make(supernet: Supernet, chosen: Chosen, materials: Materials, progress: Progress) -> _Made:
    subnets = [outcome.candidate.subnet for outcome in chosen.trials.values()]
    if chosen.is_soup:
        kept = _soup(supernet, subnets, materials, progress)
        numbers = iter(zip(chosen.trials, subnets, strict=True))
        # Both are best first, so each is found behind the one before.
        average_of = tuple(next(n for n, s in numbers if s == subnet) for subnet in kept)
        make = partial(average_export, subnets=kept)
        return _finished(make, supernet, chosen, materials, progress, average_of=average_of)
    if len(subnets) > 1:
        make = partial(average_export, subnets=subnets)
        average_of = tuple(chosen.trials)
        return _finished(make, supernet, chosen, materials, progress, average_of=average_of)
    (subnet,), asked = subnets, chosen.finetuning
    make = partial(subnet_export, subnet=subnet)
    if asked is None:
        return _finished(make, supernet, chosen, materials, progress)
    tuned, kept_epoch = finetune_or_load(supernet, subnet, asked, materials, progress)
    finetuning = FinetuningRecord(
        **asdict(asked),
        kept_epoch=kept_epoch,
        val_before=_measured(materials, supernet.merge(subnet), materials.val),
    )
    return _finished(make, tuned, chosen, materials, progress, finetuning=finetuning)


def _finished(
    make: Callable[[Supernet], Exportable],
    supernet: Supernet,
    chosen: Chosen,
    materials: Materials,
    progress: Progress,
    **told: Any,
) -> _Made:
    """What is made of a supernet; calibrated, if that is asked for."""
    exportable = make(supernet)
    if not chosen.calibrate:
        return _Made(exportable=exportable, **told)
    val = materials.val.to(next(supernet.parameters()).device)
    batch_size = materials.file.search.batch_size
    temperature = temperature_of(exportable.network, val, batch_size=batch_size)
    if temperature == 1:
        progress.note("no temperature calibrates it on val: it is exported as it is")
    return _Made(
        exportable=make(with_temperature(supernet, temperature)),
        calibration=CalibrationRecord(
            temperature=temperature,
            val_before=_measured(materials, exportable.network, materials.val),
        ),
        **told,
    )


def _soup(
    supernet: Supernet, subnets: Sequence[SubnetConfig], materials: Materials, progress: Progress
) -> list[SubnetConfig]:
    with progress.bar("choosing a soup", len(subnets)) as bar:
        return greedy_soup(
            supernet,
            subnets,
            materials.val.to(next(supernet.parameters()).device),
            batch_size=materials.file.search.batch_size,
            on_candidate=lambda tried, loss: bar.update(tried, f"val loss {loss:.4f}"),
        )


def _identity(chosen: Chosen, made: _Made) -> dict[str, Any]:
    """Which trial subnet.json is about, or which ones, and how they became one network."""
    if made.average_of:
        averaged = zip(made.average_of, made.exportable.origin["average_of"], strict=True)
        candidates = [
            {"trial": trial, "digest": outcome.candidate.subnet.digest}
            for trial, outcome in chosen.trials.items()
        ]
        return {
            "average_of": [{"trial": trial, **subnet} for trial, subnet in averaged],
            "soup_of": candidates if chosen.is_soup else None,
        }
    candidate = chosen.best.candidate
    return {
        "trial": chosen.trial,
        "generation": candidate.generation,
        "index": candidate.index,
        "digest": candidate.subnet.digest,
        "finetuning": optional_table(made.finetuning),
    }


def _val_figures(
    record: StudyRecord, chosen: Chosen, materials: Materials, merged: torch.nn.Module
) -> tuple[Figures, Figures | None]:
    """The figures to show, and those of the search where they are others.

    No search measured an average, or what was trained on or calibrated after it, so their networks
    run over the validation split here.
    """
    if chosen.trial is None or chosen.finetuning is not None or chosen.calibrate:
        return _measured(materials, merged, materials.val), None
    splits = search_splits(materials)
    precision = record.attributes.get("precision", materials.file.search.precision)
    outcome, final = chosen.best, chosen.final
    assert outcome.top1 is not None, "a failed trial is not chosen"
    assert outcome.loss is not None, "a failed trial is not chosen"
    searched = Figures(
        top1=outcome.top1, loss=outcome.loss, n_images=len(splits.seen), precision=precision
    )
    if final is None or final.loss is None or final.top1 is None:
        return searched, None
    return Figures(top1=final.top1, loss=final.loss, n_images=len(splits.judged)), searched


def _test_evaluation(
    materials: Materials, merged: torch.nn.Module, progress: Progress
) -> tuple[Figures | None, tuple[str, ...]]:
    """The figures on the test split, and the classes that it lacks; None where there is no test
    split.
    """
    try:
        test = materials.test_split(progress)
    except DataError as error:
        _log.warning("the export has no test figures: %s", error)
        return None, ()
    if missing := missing_classes(materials.train, test):
        progress.note(missing_note("test", missing))
    return _measured(materials, merged, test), missing


def _measured(materials: Materials, merged: torch.nn.Module, split: Split) -> Figures:
    """A merged network's figures on a split, in float32."""
    device = next(merged.parameters()).device
    batch_size = materials.file.search.batch_size
    evaluation = evaluate_model(merged, split.to(device), batch_size=batch_size)
    return Figures(top1=evaluation.top1, loss=evaluation.loss, n_images=evaluation.n_images)
