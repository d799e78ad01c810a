"""Formats in which an export is written besides timm's own, and what loads them again.

Each is one file beside `model.safetensors`. It counts as written when it was loaded from the disk
again, and its logits of real images are those of the network.
"""

from supernet.formats.facts import ModelFacts
from supernet.formats.loading import Classifier, load_classifier
from supernet.formats.writing import (
    FORMATS,
    Besides,
    Written,
    check_formats,
    export_files,
    write_formats,
)

__all__ = [
    "FORMATS",
    "Besides",
    "Classifier",
    "ModelFacts",
    "Written",
    "check_formats",
    "export_files",
    "load_classifier",
    "write_formats",
]
