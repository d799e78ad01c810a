"""Export any trial of a study, at any time after its supernet has trained."""

from __future__ import annotations

from pathlib import Path

from glora_search.cluster.artifacts import Artifacts
from glora_search.recording import Database
from glora_search.recording.storage_url import resolve_storage
from glora_search.stages.exporting import Export, chosen_trial, export_trial, study_of
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
    storage: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write one subnet of a study as a plain network; the best one by default.

    Args:
        name: The study.
        out: A directory that is new or empty.
        trial: Optuna's number of the subnet.
        storage: As in `launch`.
        progress: As in `launch`.

    Raises:
        GLoRASearchError: No such study or trial, changed inputs, or a directory that is not empty.
    """
    progress = progress or Silent()
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        check_export_directory(out)
        chosen = chosen_trial(record, record.trials(), trial)
        recorded = record.attributes["fingerprints"]
        if "supernet" not in recorded:
            raise ExportError(f"study {name!r} has no trained supernet yet; resume it first")
        file = study_of(record)
        artifacts = Artifacts(url=file.cluster.artifacts, read_only=True)
        materials = prepare(file, progress, artifacts=artifacts)
        check_fingerprints(recorded, materials.fingerprints, name)
        supernet = train_or_load_supernet(materials, progress)
        check_fingerprints(recorded, {"supernet": supernet_fingerprint(supernet)}, name)
        return export_trial(record, chosen, out, materials, supernet, progress)
