"""From a PIL image to what the backbone expects, as the backbone's own timm configuration says.

In two steps, as timm's prefetching loader does it: resizing and cropping give uint8 once, on the
CPU; scaling and normalising happen for each batch, on the batch's device. So a decoded split takes
one byte a value. Legend: `b` batch, `c` channels, `h` height, `w` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from supernet.backbones import input_size
from supernet.errors import DataError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
_PIL_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images are resized, cropped and normalised; the fields are timm's own.

    Args:
        input_size: (c, h, w); c is 1 (grey) or 3 (RGB).
        interpolation: One of `INTERPOLATIONS`.
        mean: Per channel, of images scaled to 0..1.
        std: Per channel, above 0.
        crop_pct: Output size over size before the crop; 1.0 crops nothing.
        crop_mode: `center` keeps the aspect ratio, `squash` does not, `border` pads.

    Raises:
        DataError: A value outside of these.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str

    def __post_init__(self) -> None:
        for name in ("input_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # TOML and JSON give lists
        size = self.input_size
        if len(size) != 3 or size[0] not in _PIL_MODES or min(size) < 1:
            raise DataError(
                f"input_size must be (channels, height, width) with 1 or 3 channels; got {size}"
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) != size[0]:
                raise DataError(
                    f"{name} needs one value for each of {size[0]} channels; "
                    f"got {getattr(self, name)}"
                )
        if min(self.std) <= 0:
            raise DataError(f"std must be above 0; got {self.std}")
        if self.crop_pct <= 0:
            raise DataError(f"crop_pct must be above 0 (1.0 crops nothing); got {self.crop_pct}")
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("crop_mode", self.crop_mode, CROP_MODES)

    @classmethod
    def from_model(cls, model: nn.Module, **overrides: Any) -> Preprocessing:
        """The preprocessing that `model` was pretrained with: timm's `resolve_model_data_config`.

        The size is that of the network itself, see `input_size`.

        Args:
            model: A timm model; one without a `pretrained_cfg` gets timm's ImageNet defaults.
            overrides: Fields of this class; a single `mean` or `std` holds for all channels.

        Raises:
            DataError: An unknown field, or a value that the class refuses.
        """
        known = [field.name for field in fields(cls)]
        for name in overrides:
            _check_choice("the name of a preprocessing override", name, known)
        config: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        config["input_size"] = input_size(model)
        config |= overrides
        channels = config["input_size"][0]
        for name in ("mean", "std"):
            values = tuple(config[name])
            if len(values) != channels and (name not in overrides or len(values) == 1):
                # As timm's loader does: the average of the pretraining's channels stands for each.
                config[name] = (sum(values) / len(values),) * channels
        return cls(**{name: config[name] for name in known})

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The evaluation transform of timm, not normalised: a PIL image to uint8 (c, h, w)."""
        to_tensor = create_transform(
            self.input_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            use_prefetcher=True,
        )
        return _EvalTransform(_PIL_MODES[self.input_size[0]], to_tensor)

    def normalise(self, images: Tensor) -> Tensor:
        """(x / 255 - mean) / std, computed as timm's prefetcher does it, on the device of `images`.

        Args:
            images: uint8 (b, c, h, w) or (c, h, w).

        Returns:
            float32 of the same shape.
        """
        mean = _per_channel(self.mean, images.device)
        std = _per_channel(self.std, images.device)
        return images.to(torch.float32, copy=True).sub_(mean).div_(std)


@dataclass(frozen=True)
class _EvalTransform:
    """A class, not a closure: it pickles, for the workers of a loader."""

    mode: str
    to_tensor: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode.startswith(("I", "F")):  # PIL would clip to 0..255: nearly white images
            raise DataError(
                f"grey values without a known range (PIL mode {image.mode}); convert the image to "
                f"8 or 16 bits"
            )
        return self.to_tensor(image.convert(self.mode))


@lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """`values` on the scale 0..255 as (c, 1, 1); kept, since making it waits for a CUDA stream."""
    with torch.inference_mode(False):
        return torch.tensor([255 * v for v in values], dtype=torch.float32, device=device).view(
            -1, 1, 1
        )


def _check_choice(what: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise DataError(f"{what} must be one of {', '.join(accepted)}; got {value!r}")
