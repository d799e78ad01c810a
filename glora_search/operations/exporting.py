"""Export any trial of a study, or one network of its best, once its supernet has trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glora_search.cluster.artifacts import Artifacts
from glora_search.recording import Database
from glora_search.recording.storage_url import resolve_storage
from glora_search.stages.choosing import choose, wanted_by
from glora_search.stages.export_record import Export
from glora_search.stages.exporting import export_chosen
from glora_search.stages.prepare import check_fingerprints, prepare
from glora_search.stages.progress import Progress, Silent
from glora_search.stages.training import supernet_fingerprint, train_or_load_supernet
from glora_search.study.picking import Pick
from glora_search.study.place_sections import FinetuneKeep
from glora_search.study.reading import stored_study
from supernet.errors import ExportError
from supernet.export import check_export_directory
from supernet.formats import check_formats


def export(
    name: str,
    out: Path,
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
    formats: Sequence[str] | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write one subnet of a study, or one network of its best, as a plain network.

    By default what the study was launched with: the winner, or what its section [export] says.

    Args:
        name: The study.
        out: A directory that is new or empty.
        trial: Optuna's number of the subnet.
        digest: The first characters of the subnet's digest.
        pick: `knee`: of the front of a study of two objectives, the subnet from which less of one
            costs most of the other. `loss` or `top1`: the best in that.
        max_params: Adapter parameters that the subnet may have at most; it goes together with
            `pick`.
        average: Of how many of the best subnets the weights are averaged; 1 is the winner alone.
        soup: Of how many of the best a greedy soup is made: the average of those that do not raise
            the val loss. Of all these, one can be given.
        finetune_epochs: How long the one subnet is trained on first. 0 exports it as it is.
        finetune_lr: The peak learning rate of that.
        finetune_keep: `best` keeps the epoch with the lowest val loss; `average` trains at a rate
            that stays high, and keeps the mean of the weights over epochs and runs.
        finetune_runs: How often it is trained on, each time from the inherited weights.
        finetune_batch_size: Images of a step of that.
        calibrate: Fit a temperature on the validation split, and divide the head by it.
        formats: In which it is written besides timm's: `onnx`, `pt2`, `hf`. None for what the
            study's section [export] says.
        storage: As in `launch`.
        progress: As in `launch`.

    Raises:
        GLoRASearchError: No such study or trial, fewer subnets than are asked for, arguments that
            exclude each other, changed inputs, a directory that is not empty, or a format that is
            not known, needs a package that is missing, or differs from the network.
    """
    progress = progress or Silent()
    with Database.open(resolve_storage(storage), create=False) as database:
        record = database.open_study(name)
        check_export_directory(out)
        file = stored_study(record.attributes["study"])
        wanted = wanted_by(
            file.export,
            trial=trial,
            digest=digest,
            pick=pick,
            max_params=max_params,
            average=average,
            soup=soup,
            finetune_epochs=finetune_epochs,
            finetune_lr=finetune_lr,
            finetune_keep=finetune_keep,
            finetune_runs=finetune_runs,
            finetune_batch_size=finetune_batch_size,
            calibrate=calibrate,
        )
        in_formats = check_formats(file.export.formats if formats is None else formats)
        chosen = choose(record, record.trials(), wanted)
        recorded = record.attributes["fingerprints"]
        if "supernet" not in recorded:
            raise ExportError(f"study {name!r} has no trained supernet yet; resume it first")
        artifacts = Artifacts(url=file.cluster.artifacts, read_only=True)
        materials = prepare(file, progress, artifacts=artifacts)
        check_fingerprints(recorded, materials.fingerprints, name)
        supernet = train_or_load_supernet(materials, progress)
        check_fingerprints(recorded, {"supernet": supernet_fingerprint(supernet)}, name)
        return export_chosen(record, chosen, out, materials, supernet, progress, formats=in_formats)
