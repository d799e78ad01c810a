"""The formats of an export, by name: known without the network's package, for files and help."""

from __future__ import annotations

import typing
from typing import Final, Literal

FormatName = Literal["timm", "onnx", "pt2", "hf"]
FORMAT_NAMES: Final[tuple[str, ...]] = typing.get_args(FormatName)
"""`timm` is always written; a test compares the others with `supernet.formats.FORMATS`."""
