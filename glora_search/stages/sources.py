"""From the section [data] of a study file to a data source."""

from __future__ import annotations

from typing import Any

from glora_search.study.data_sections import (
    SHARED_KEYS,
    Data,
    DigitsData,
    DomainData,
    DrawnData,
    FewShotData,
    FolderData,
    TimmData,
    VTABData,
)
from supernet.data import (
    DigitsSource,
    DomainSource,
    DrawnSource,
    FewShotSource,
    FolderSource,
    Source,
    TimmSource,
    VTABSource,
)


def make_source(data: Data) -> Source:
    """The data source that a section [data] describes.

    Raises:
        DataError: It names a task, data set or domain that is not known, or splits that overlap.
    """
    match data:
        case DigitsData():
            n_train = None if data.n_train == "all" else data.n_train
            return DigitsSource(tuple(data.classes), n_train, data.n_val, data.seed)
        case DrawnData():
            return DrawnSource(data.task, data.n_train, data.n_val, data.n_test, data.seed)
        case VTABData():
            return VTABSource(
                data.root, data.task, data.train, data.val, data.test, num_classes=data.num_classes
            )
        case FolderData():
            return FolderSource(
                data.root, data.train, data.val, data.test, data.val_fraction, data.seed
            )
        case TimmData():
            return TimmSource(**_own_keys(data))
        case FewShotData():
            return FewShotSource(**_own_keys(data))
        case DomainData():
            return DomainSource(**_own_keys(data))


def _own_keys(data: TimmData | FewShotData | DomainData) -> dict[str, Any]:
    """The keys of a section that are the arguments of its source."""
    return data.model_dump(include=set(type(data).model_fields) - {"source", *SHARED_KEYS})
