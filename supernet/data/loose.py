"""Images without labels, as a user names them: folders, files, patterns. One that does not decode
is told, and does not end the rest.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torch import Tensor

from supernet.data.decoding import UNDECODABLE, undecodable
from supernet.data.files import EXTENSIONS, images_below
from supernet.data.preprocessing import Preprocessing
from supernet.errors import DataError


def find_images(names: Iterable[str | Path]) -> list[Path]:
    """The images that are meant, in the order of the names, each once.

    Args:
        names: A folder stands for the images below it, at any depth; a file for itself, whatever
            its extension; a pattern, such as `photos/**/*.jpg`, for the folders and the images
            that match.

    Raises:
        DataError: A name for which there is no image.
    """
    found: dict[Path, None] = {}
    for name in names:
        found |= dict.fromkeys(_found(str(name)))
    return list(found)


def _found(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        images = images_below(path)
    elif glob.has_magic(name):
        # Path.glob takes no absolute pattern.
        matches = map(Path, sorted(glob.glob(name, recursive=True)))  # noqa: PTH207
        images = [image for match in matches for image in _matched(match)]
    else:
        raise DataError(f"{name!r} is not there; accepted: folders, image files, patterns")
    if not images:
        where = f"below {name!r}" if path.is_dir() else f"matches {name!r}"
        raise DataError(
            f"no image {where}; accepted are files named {' '.join(sorted(EXTENSIONS))}"
        )
    return images


def _matched(path: Path) -> list[Path]:
    if path.is_dir():
        return images_below(path)
    return [path] if path.suffix.lower() in EXTENSIONS else []


Decoded = tuple[Path, Tensor | DataError]
"""An image's file, and uint8 (c, h, w) or what is wrong with it."""


def decoded_batches(
    paths: Sequence[Path], preprocessing: Preprocessing, *, batch_size: int, workers: int
) -> Iterator[list[Decoded]]:
    """All images in order, in batches; the next one is decoded while the caller works.

    Args:
        paths: The files.
        preprocessing: What the network expects.
        batch_size: Files a batch.
        workers: Threads that decode.
    """
    transform = preprocessing.transform()

    def decoded(path: Path) -> Decoded:
        try:
            with Image.open(path) as image:
                image.load()
                return path, transform(image)
        except UNDECODABLE as error:
            return path, undecodable(str(path), error)

    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
    try:
        ahead: list[Future[Decoded]] = []
        for start in range(0, len(paths), batch_size):
            batch = [pool.submit(decoded, path) for path in paths[start : start + batch_size]]
            if ahead:
                yield [future.result() for future in ahead]
            ahead = batch
        if ahead:
            yield [future.result() for future in ahead]
    finally:
        pool.shutdown(cancel_futures=True)
