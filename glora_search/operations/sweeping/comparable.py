"""Which trials may share a sweep: those whose scores can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glora_search.operations.sweeping.recipes import swept_space
from glora_search.operations.sweeping.trial import scored_subnets
from glora_search.recording import Database, SweepRecord
from glora_search.stages.prepare import Materials, check_fingerprints
from glora_search.stages.provenance import machine, versions
from glora_search.study.errors import StudyExistsError, StudyNotFoundError
from glora_search.study.sweep_section import SWEPT
from supernet.training import derive_seed


def open_or_create(database: Database, materials: Materials) -> SweepRecord:
    """The sweep of a study.

    Raises:
        FingerprintError: It was begun with another backbone or other data.
        StudyExistsError: It was begun with another study file.
        StorageError: The database fails.
    """
    file, identity = materials.file, _identity(materials)
    name = file.study.name
    try:
        record = database.open_sweep(name)
    except StudyNotFoundError:
        attributes: dict[str, Any] = {
            "study": file.model_dump(mode="json"),
            "seed": file.study.seed,
            "versions": versions(),
            "fingerprints": materials.fingerprints,
            "identity": identity,
            "machine": machine(),
            "planned": file.sweep.trials,
            "status": "sweeping",
        }
        return database.create_sweep(
            name, space=materials.space, swept=swept_space(file), attributes=attributes
        )
    known = record.study.attributes
    check_fingerprints(known["fingerprints"], materials.fingerprints, record.name)
    _check_identity(known["identity"], identity, record.name)
    return record


def _identity(materials: Materials) -> dict[str, Any]:
    """What trials have to share to be compared, besides the data and the backbone."""
    file = materials.file
    trained = {k: v for k, v in file.supernet.training_fields().items() if k not in SWEPT}
    scored = [subnet.digest for subnet in scored_subnets(materials)]
    return {
        "study.seed": file.study.seed,
        "space": derive_seed(materials.space.to_json()),
        **{f"supernet.{key}": value for key, value in trained.items()},
        **{f"sweep.{name}": repr(space) for name, space in swept_space(file).items()},
        "sweep.grace": file.sweep.grace,
        "sweep.reduction_factor": file.sweep.reduction_factor,
        "sweep.subnets and parameter limits": derive_seed(*scored),
        "search.batch_size": file.search.batch_size,
        "search.precision": file.search.precision,
    }


def _check_identity(recorded: Mapping[str, Any], found: Mapping[str, Any], name: str) -> None:
    changed = [key for key, value in found.items() if recorded.get(key, value) != value]
    if changed:
        raise StudyExistsError(
            f"{name!r} was begun with another study file, which differs in {', '.join(changed)}; "
            "its trials could not be compared with new ones: restore what it was, or choose "
            "another study.name"
        )
