"""Decoding: images to uint8 tensors, in order, on several threads, with errors that name the image.

Threads suffice: PIL releases the interpreter's lock while it decodes and resizes.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor

from supernet.data.examples import ImageFiles, ImageStream
from supernet.data.preprocessing import Preprocessing
from supernet.errors import DataError

# What PIL's decoders raise on broken files; SyntaxError is its word for a bad PNG or TIFF.
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_CHUNK = 16  # images a task: decoding outweighs handing them over, and progress still moves


def default_workers() -> int:
    """As many as there are processors for this process, at most 8."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    return min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)


def decode(images: ImageFiles, index: int, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """One image as uint8 (c, h, w).

    Raises:
        DataError: The image does not decode; names it.
    """
    try:
        return transform(images.open(index))
    except UNDECODABLE as error:
        raise undecodable(images.describe(index), error) from error


def decode_files(
    images: ImageFiles, indices: Iterable[int], preprocessing: Preprocessing, workers: int
) -> Iterator[Tensor]:
    """The images at `indices`, in that order, each uint8 (c, h, w), decoded by `workers` threads.

    Raises:
        DataError: An image does not decode; the first one in order, whichever thread meets it.
    """
    transform = preprocessing.transform()
    if workers <= 1:
        for index in indices:
            yield decode(images, index, transform)
        return
    indices = list(indices)
    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for decoded in pool.map(lambda c: [decode(images, i, transform) for i in c], chunks):
            yield from decoded
    finally:
        pool.shutdown(cancel_futures=True)


def decode_stream(images: ImageStream, preprocessing: Preprocessing) -> Iterator[Tensor]:
    """All images of a stream, in order, each uint8 (c, h, w).

    Raises:
        DataError: An image does not decode.
    """
    transform = preprocessing.transform()
    for index, image in enumerate(images.in_order()):
        try:
            yield transform(image)
        except UNDECODABLE as error:
            raise undecodable(images.describe(index), error) from error


def stack(
    decoded: Iterable[Tensor],
    n: int,
    preprocessing: Preprocessing,
    on_done: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """`n` decoded images as one uint8 tensor (n, c, h, w); `on_done` is told the count so far."""
    images = torch.empty((n, *preprocessing.input_size), dtype=torch.uint8)
    done = 0
    for image in decoded:
        images[done] = image
        done += 1
        on_done(done)
    if done != n:
        raise DataError(f"{n} images were announced, but {done} came")
    return images


def undecodable(where: str, error: BaseException) -> DataError:
    """The error that says which image does not decode."""
    reason = str(error) or type(error).__name__
    return DataError(f"{where}: the image does not decode: {reason}")
