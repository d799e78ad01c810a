"""From the section [data] of a study file to a data source."""

from __future__ import annotations

from typing import Final

from glora_search.study.data_sections import (
    Data,
    DigitsData,
    DrawnData,
    FolderData,
    TimmData,
    VTABData,
)
from supernet.data import DigitsSource, DrawnSource, FolderSource, Source, TimmSource, VTABSource

_SHARED_DATA_KEYS: Final = (
    *("source", "interpolation", "mean", "std", "crop_pct", "crop_mode"),
    *("cache_gb", "decode_workers"),
)


def make_source(data: Data) -> Source:
    """The data source that a section [data] describes.

    Raises:
        DataError: Its root or its task is not there.
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
            given = data.model_dump(include=set(TimmData.model_fields) - set(_SHARED_DATA_KEYS))
            return TimmSource(**given)
