"""Preprocessing: timm's own configuration and arithmetic, also for one channel."""

import io
import pickle

import numpy as np
import pytest
import timm
import torch
from data_images import PREPROCESSING, pixels
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.data.loader import PrefetchLoader
from timm.models.vision_transformer import VisionTransformer

from supernet.data import Preprocessing
from supernet.errors import DataError


def grey(**changes: object) -> Preprocessing:
    fields = {
        "input_size": (1, 8, 8),
        "interpolation": "bicubic",
        "mean": (0.5,),
        "std": (0.25,),
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    return Preprocessing(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224"])
def test_fields_are_timms_own(name: str) -> None:
    model = timm.create_model(name)
    config = resolve_model_data_config(model)
    made = Preprocessing.from_model(model)
    assert {field: getattr(made, field) for field in config} == config


def test_size_and_channels_come_from_the_network() -> None:
    """The configuration of timm keeps 3 x 224 x 224 for a model that was made smaller and grey."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), in_chans=1, depth=1)
    made = Preprocessing.from_model(model)
    assert made.input_size == (1, 32, 64)
    assert made.mean == (0.5,)
    transformed = made.transform()(Image.fromarray(pixels(0, 50, 70)))
    assert model(made.normalise(transformed[None])).shape == (1, 1000)


def test_a_model_without_a_configuration_averages_imagenets_statistics() -> None:
    model = VisionTransformer(img_size=8, patch_size=2, in_chans=1, embed_dim=48, depth=1)
    made = Preprocessing.from_model(model, crop_pct=1.0)
    assert made.input_size == (1, 8, 8)
    assert made.mean == pytest.approx((sum((0.485, 0.456, 0.406)) / 3,))


def test_overrides_replace_timms_fields() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    overrides = {"crop_pct": 1.0, "crop_mode": "squash", "mean": [0.1, 0.2, 0.3], "std": [0.5]}
    made = Preprocessing.from_model(model, interpolation="bilinear", **overrides)
    assert (made.crop_pct, made.crop_mode, made.interpolation) == (1.0, "squash", "bilinear")
    assert made.mean == (0.1, 0.2, 0.3)
    assert made.std == (0.5, 0.5, 0.5)


def test_an_unknown_override_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"one of input_size, .*crop_mode; got 'crop_percent'"):
        Preprocessing.from_model(timm.create_model("vit_tiny_patch16_224", depth=1), crop_percent=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (2, 8, 8)}, "with 1 or 3 channels"),
        ({"input_size": (1, 0, 8)}, "input_size must be"),
        ({"mean": (0.5, 0.5)}, "mean needs one value for each of 1 channels"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"crop_pct": 0.0}, "crop_pct must be above 0"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest"),
        ({"crop_mode": "centre"}, "crop_mode must be one of center"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        grey(**changes)


def test_overrides_with_the_wrong_number_of_means_are_not_averaged() -> None:
    with pytest.raises(DataError, match="mean needs one value for each of 3 channels"):
        Preprocessing.from_model(
            timm.create_model("vit_tiny_patch16_224", depth=1), mean=(0.1, 0.2)
        )


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_transform_and_normalise_are_timms_evaluation_transform(crop_mode: str) -> None:
    """Byte for byte up to the tensor, and one rounding after it."""
    made = Preprocessing(
        **{**vars(PREPROCESSING), "crop_mode": crop_mode, "crop_pct": 0.9}  # type: ignore[arg-type]
    )
    image = Image.fromarray(pixels(1, 37, 53))
    bytes_ = made.transform()(image)
    assert bytes_.dtype == torch.uint8
    assert bytes_.shape == (3, 16, 16)
    reference = create_transform(**vars(made))(image)
    torch.testing.assert_close(made.normalise(bytes_), reference, rtol=1e-5, atol=1e-6)


def test_normalise_is_what_timms_prefetcher_computes() -> None:
    images = torch.from_numpy(pixels(2, 16, 16)).permute(2, 0, 1)[None].contiguous()
    loader = [(images, torch.zeros(1, dtype=torch.int64))]
    prefetched, _ = next(
        iter(
            PrefetchLoader(
                loader, PREPROCESSING.mean, PREPROCESSING.std, device=torch.device("cpu")
            )
        )
    )
    assert torch.equal(PREPROCESSING.normalise(images), prefetched)


def test_normalise_leaves_its_input_alone() -> None:
    images = torch.full((1, 1, 8, 8), 7.0)
    assert grey().normalise(images)[0, 0, 0, 0] != 7.0
    assert images.eq(7.0).all()


def test_normalise_works_under_autograd_after_inference_mode() -> None:
    """The statistics are kept: made in inference mode first, they must not poison training."""
    made = grey(mean=(0.123,))
    with torch.inference_mode():
        made.normalise(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    weight = torch.ones(1, requires_grad=True)
    (made.normalise(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)) * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(64 * (1 - 0.123) / 0.25, rel=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA"])
def test_every_8_bit_mode_becomes_the_backbones_channels(mode: str) -> None:
    image = Image.fromarray(pixels(3)).convert(mode)
    assert PREPROCESSING.transform()(image).shape == (3, 16, 16)
    assert grey().transform()(image).shape == (1, 8, 8)


def test_a_grey_image_of_the_right_size_keeps_its_values() -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    assert np.array_equal(grey().transform()(Image.fromarray(values))[0].numpy(), values)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_images_keep_their_upper_8_bits(dtype: str) -> None:
    """PIL would clip them: all but the darkest would be white."""
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    file = io.BytesIO()
    Image.fromarray(values.astype(dtype)).save(file, "tiff")
    assert np.array_equal(grey().transform()(Image.open(file))[0].numpy(), values >> 8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_values_without_a_known_range_are_refused(dtype: type) -> None:
    with pytest.raises(DataError, match="grey values without a known range"):
        grey().transform()(Image.fromarray(np.full((8, 8), 4000, dtype=dtype)))


def test_transform_pickles_for_the_workers_of_a_loader() -> None:
    image = Image.fromarray(pixels(4))
    transform = PREPROCESSING.transform()
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), transform(image))
