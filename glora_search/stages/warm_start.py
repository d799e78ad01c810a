"""What a warm start has to know of the trained supernet, as plain numbers."""

from __future__ import annotations

from glora_search.proposing import Sensitivity
from glora_search.recording import StudyRecord
from glora_search.stages.prepare import Materials, param_limits
from glora_search.stages.progress import Progress
from glora_search.study.attributes import SENSITIVITY
from supernet import Supernet
from supernet.sensitivity import sensitivity


def measured_sensitivity(materials: Materials, supernet: Supernet) -> Sensitivity | None:
    """The scores of the supernet's choices on training images; None where the study's search does
    not start by them.
    """
    if materials.file.search.warm_start != "sensitivity":
        return None
    device = next(supernet.parameters()).device
    return sensitivity(
        supernet,
        materials.train.to(device),
        seed=materials.file.study.seed,
        limits=param_limits(materials.file),
    )


def recorded_sensitivity(
    record: StudyRecord, materials: Materials, supernet: Supernet, progress: Progress
) -> Sensitivity | None:
    """The same, measured once a study: its last digits decide which subnets are drawn, and a resume
    may run on another machine.
    """
    if materials.file.search.warm_start != "sensitivity":
        return None
    known: Sensitivity | None = record.attributes.get(SENSITIVITY)
    if known is None:
        progress.note("measuring how much each choice matters, on training images")
        known = measured_sensitivity(materials, supernet)
        record.set_attribute(SENSITIVITY, known)
    return known
