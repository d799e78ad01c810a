"""Data: where images come from, how they are prepared, and the splits that everything else reads.

A source names the images and labels of a split; `load_search_splits` and `load_test_split` make
splits of it, decoded once where they fit.
"""

from supernet.data.decoding import default_workers
from supernet.data.digits import DigitsSource
from supernet.data.domains import DOMAINS, DomainSource
from supernet.data.drawn import DRAWN_TASKS, PRETRAINING_TASK, DrawnSource
from supernet.data.examples import (
    SPLITS,
    Examples,
    ImageFiles,
    ImageStream,
    LabelSpace,
    Source,
)
from supernet.data.few_shot import FEW_SHOT_SETS, FewShotSource
from supernet.data.files import FileImages
from supernet.data.folder import FolderSource
from supernet.data.holdout import fold, hold_out, n_held_out
from supernet.data.loading import (
    CACHE_BYTES,
    Progress,
    load_search_splits,
    load_split,
    load_test_split,
)
from supernet.data.loose import decoded_batches, find_images
from supernet.data.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from supernet.data.splits import Batch, Split, TensorSplit, missing_classes, pixel_fingerprint
from supernet.data.streamed import StreamedSplit
from supernet.data.timm_source import TimmSource
from supernet.data.vtab import VTAB_CLASSES, VTABSource

__all__ = [
    "CACHE_BYTES",
    "CROP_MODES",
    "DOMAINS",
    "DRAWN_TASKS",
    "FEW_SHOT_SETS",
    "INTERPOLATIONS",
    "PRETRAINING_TASK",
    "SPLITS",
    "VTAB_CLASSES",
    "Batch",
    "DigitsSource",
    "DomainSource",
    "DrawnSource",
    "Examples",
    "FewShotSource",
    "FileImages",
    "FolderSource",
    "ImageFiles",
    "ImageStream",
    "LabelSpace",
    "Preprocessing",
    "Progress",
    "Source",
    "Split",
    "StreamedSplit",
    "TensorSplit",
    "TimmSource",
    "VTABSource",
    "decoded_batches",
    "default_workers",
    "find_images",
    "fold",
    "hold_out",
    "load_search_splits",
    "load_split",
    "load_test_split",
    "missing_classes",
    "n_held_out",
    "pixel_fingerprint",
]
