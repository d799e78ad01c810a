"""From a source to splits: decode once what fits, stream what does not.

Training and search call `load_search_splits`, which cannot return the test split. An export or a
report calls `load_test_split`, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from supernet.data.decoding import decode_files, decode_stream, default_workers, stack
from supernet.data.examples import Examples, ImageFiles, Source, check_split_name
from supernet.data.preprocessing import Preprocessing
from supernet.data.splits import Split, TensorSplit, pixel_fingerprint
from supernet.data.streamed import StreamedSplit
from supernet.errors import DataError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a split's name, images decoded so far, and images in all."""

CACHE_BYTES = 4 * 2**30


def load_split(
    source: Source,
    name: str,
    preprocessing: Preprocessing,
    *,
    cache_bytes: int = CACHE_BYTES,
    decode_workers: int | None = None,
    on_progress: Progress | None = None,
) -> Split:
    """One split of a source; training and search use `load_search_splits` instead.

    Args:
        source: Where the data comes from.
        name: `train`, `val` or `test`.
        preprocessing: The backbone's, see `Preprocessing.from_model`.
        cache_bytes: A split that takes more bytes than this, decoded, is streamed.
        decode_workers: Threads that decode, processes for a streamed split; None for one for each
            processor, at most 8.
        on_progress: Told about each decoded image, in the calling thread.

    Returns:
        A `TensorSplit`, or a `StreamedSplit` where the images do not fit.

    Raises:
        DataError: Missing files and wrong labels before anything is decoded; then the first image
            that does not decode.
    """
    check_split_name(name)
    return _load(
        source.examples(name), name, preprocessing, cache_bytes, decode_workers, on_progress
    )


def load_search_splits(
    source: Source,
    preprocessing: Preprocessing,
    *,
    cache_bytes: int = CACHE_BYTES,
    decode_workers: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[Split, Split]:
    """The train and val splits: all that supernet training and search may see.

    Both are checked before either is decoded. Arguments and errors as in `load_split`;
    `cache_bytes` holds for each.
    """
    train, val = source.examples("train"), source.examples("val")
    _warn_of_overlap(train, val)
    options = (preprocessing, cache_bytes, decode_workers, on_progress)
    return _load(train, "train", *options), _load(val, "val", *options)


def load_test_split(
    source: Source,
    preprocessing: Preprocessing,
    *,
    cache_bytes: int = CACHE_BYTES,
    decode_workers: int | None = None,
    on_progress: Progress | None = None,
) -> Split:
    """The test split, for what is exported or reported. Arguments and errors as in `load_split`."""
    options = (preprocessing, cache_bytes, decode_workers, on_progress)
    return _load(source.examples("test"), "test", *options)


def _load(
    examples: Examples,
    name: str,
    preprocessing: Preprocessing,
    cache_bytes: int,
    decode_workers: int | None,
    on_progress: Progress | None,
) -> Split:
    workers = default_workers() if decode_workers is None else decode_workers
    channels, height, width = preprocessing.input_size
    n = len(examples.labels)
    n_bytes = n * channels * height * width
    images = examples.images
    if n_bytes > cache_bytes:
        size = f"{n:,} images take {n_bytes:,} bytes decoded, the limit is {cache_bytes:,}"
        if not isinstance(images, ImageFiles):
            raise DataError(
                f"{name}: {size}, and this source can only be read in order; raise the limit, "
                f"take fewer images, or give a source with random access"
            )
        logger.info("%s: %s; decoding on the fly with %d workers", name, size, workers)
        return StreamedSplit(name, examples, preprocessing, workers)
    if isinstance(images, ImageFiles):
        decoded = decode_files(images, range(n), preprocessing, workers)
    else:
        decoded = decode_stream(images, preprocessing)

    def on_done(done: int) -> None:
        if on_progress is not None:
            on_progress(name, done, n)

    pixels = stack(decoded, n, preprocessing, on_done)
    labels = torch.tensor(examples.labels, dtype=torch.int64)
    space = examples.label_space
    logger.info("%s: %d images of %d classes decoded", name, n, space.num_classes)
    return TensorSplit(
        name,
        pixels,
        labels,
        preprocessing,
        space.num_classes,
        space.class_names,
        pixel_fingerprint(pixels, labels),
        scored_classes=examples.scored_classes,
    )


def _warn_of_overlap(train: Examples, val: Examples) -> None:
    """Fitness on images that the supernet has learnt by heart says little."""
    seen = {train.images.identity(i) for i in range(len(train.labels))}
    shared = [i for i in range(len(val.labels)) if val.images.identity(i) in seen]
    if shared:
        logger.warning(
            "%d of the %d val images are train images as well, the first is %s",
            len(shared),
            len(val.labels),
            val.images.describe(shared[0]),
        )
