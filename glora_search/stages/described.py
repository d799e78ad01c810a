"""What an export says of the data and the backbone it was made of, to readers on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glora_search.stages.prepare import Materials
from glora_search.study.data_sections import SHARED_KEYS, DataSection
from glora_search.study.network_sections import BackboneSection


def described(materials: Materials) -> dict[str, Any]:
    """Data and backbone in a few words each, without paths of this machine."""
    return {
        "data": {
            **_data(materials.file.data),
            "train_images": len(materials.train),
            "val_images": len(materials.val),
        },
        "backbone": {
            "model": materials.architecture.model,
            "weights": _weights(materials.file.backbone),
        },
    }


def _data(section: DataSection) -> dict[str, Any]:
    told = section.model_dump(exclude={*SHARED_KEYS, "download"}, exclude_none=True)
    return {key: value for key, value in told.items() if not isinstance(value, Path)}


def _weights(section: BackboneSection) -> str:
    if section.pretrained:
        return "timm's"
    if section.pretrain is not None:
        return f"pretrained in the study on {section.pretrain.data.source}"
    return "a local checkpoint"
