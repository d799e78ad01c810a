"""Export any trial of a study, or the average of its best, once its supernet has trained."""

from __future__ import annotations

from pathlib import Path

from glora_search.cluster.artifacts import Artifacts
from glora_search.recording import Database
from glora_search.recording.storage_url import resolve_storage
from glora_search.stages.exporting import (
    Export,
    chosen_average,
    chosen_trial,
    export_chosen,
    study_of,
)
from glora_search.stages.prepare import check_fingerprints, prepare
from glora_search.stages.progress import Progress, Silent
from glora_search.stages.training import supernet_fingerprint, train_or_load_supernet
from supernet.errors import ExportError
from supernet.export import check_export_directory


def export(
    name: str,
    out: Path,
    *,
    trial: int | None = None,
    average: int | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write one subnet of a study, or the average of its best, as a plain network.

    By default what the study was launched with: the winner, or the average of the `export.average`
    best.

    Args:
        name: The study.
        out: A directory that is new or empty.
        trial: Optuna's number of the subnet.
        average: Of how many of the best subnets the weights are averaged; 1 is the winner alone.
            Excludes `trial`.
        storage: As in `launch`.
        progress: As in `launch`.

    Raises:
        GLoRASearchError: No such study or trial, fewer subnets than are to be averaged, changed
            inputs, or a directory that is not empty.
    """
    if trial is not None and average is not None:
        raise ExportError("give a trial or an average, not both")
    progress = progress or Silent()
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        check_export_directory(out)
        file = study_of(record)
        if trial is not None:
            chosen = chosen_trial(record, record.trials(), trial)
        else:
            n = file.export.average if average is None else average
            chosen = chosen_average(record, record.trials(), n)
        recorded = record.attributes["fingerprints"]
        if "supernet" not in recorded:
            raise ExportError(f"study {name!r} has no trained supernet yet; resume it first")
        artifacts = Artifacts(url=file.cluster.artifacts, read_only=True)
        materials = prepare(file, progress, artifacts=artifacts)
        check_fingerprints(recorded, materials.fingerprints, name)
        supernet = train_or_load_supernet(materials, progress)
        check_fingerprints(recorded, {"supernet": supernet_fingerprint(supernet)}, name)
        return export_chosen(record, chosen, out, materials, supernet, progress)
