"""One split as timm opens it: its labels without decoding, and its images without timm's leniency.

Used as a loader, timm's data sets pass over what does not decode: they log a warning and take the
next image. Here the readers below them are read, so that every broken image is an error.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import pickle
import struct
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.dataset import ImageDataset
from timm.data.dataset_factory import create_dataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import IterableDataset

from supernet.data.timm_dataset import PACKAGES, TimmDataset
from supernet.errors import DataError


def open_dataset(dataset: TimmDataset) -> OpenedDataset:
    """A timm data set, opened in this process.

    Raises:
        DataError: It is not there, or timm cannot read it.
    """
    package = PACKAGES.get(dataset.kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise DataError(f"{dataset} needs the package {package}; install it with pip")
    options: dict[str, Any] = {
        "input_key": dataset.input_key,
        "target_key": dataset.target_key,
        # The preprocessing converts; only tfds cannot do without.
        "input_img_mode": "RGB" if dataset.kind == "tfds" else "",
    }
    root = dataset.checked_root()
    try:
        data = create_dataset(
            "" if dataset.name.lower() == "folder" else dataset.name,
            root=root,
            split=dataset.split,
            search_split=False,
            download=dataset.download,
            **{key: value for key, value in options.items() if value is not None},
        )
    except _reader_errors() as error:
        reason = str(error) or type(error).__name__
        where = "" if dataset.root is None else f" in {dataset.root}"
        raise DataError(f"{dataset}{where} cannot be read: {reason}") from error
    return OpenedDataset(dataset, data)


class OpenedDataset:
    """A timm data set in this process."""

    def __init__(self, dataset: TimmDataset, data: Any) -> None:
        self.dataset = dataset
        self._data = data
        self._reader: Any = getattr(data, "reader", None)  # torchvision's have none
        self._lock = threading.Lock()  # a tar file has one position for all threads

    @property
    def in_order_only(self) -> bool:
        """Whether it has no random access."""
        return isinstance(self._data, IterableDataset)

    @cached_property
    def class_to_idx(self) -> dict[str, int]:
        """Class name to label; empty where the reader has no names."""
        holder = self._reader if self._reader is not None else self._data
        for attribute in ("class_to_idx", "class_name_to_idx"):
            if found := getattr(holder, attribute, None):
                return {str(name): int(label) for name, label in found.items()}
        return {}

    def class_names(self) -> tuple[str, ...] | None:
        """By label, the first of several names; None where the reader has none or skips labels."""
        names: dict[int, str] = {}
        for name, label in self.class_to_idx.items():
            names.setdefault(label, name)
        if not names or sorted(names) != list(range(len(names))):
            return None
        return tuple(names[label] for label in range(len(names)))

    @cached_property
    def labels(self) -> list[int]:
        """The label of every image, in order.

        Raises:
            DataError: A label that is no integer, or images that a reader in order left out.
        """
        labels = []
        try:
            for index, label in enumerate(self._raw_labels()):
                if not isinstance(label, Integral):
                    raise DataError(
                        f"{self.describe(index)}: the label must be an integer; got {label!r}"
                    )
                labels.append(int(label))
        except _reader_errors() as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.dataset}: its labels cannot be read: {error}") from error
        return labels

    def _raw_labels(self) -> Iterator[Any]:
        if self.in_order_only:
            yield from (label for _, label in self.samples())
        elif isinstance(self._reader, ReaderImageFolder):
            yield from (label for _, label in self._reader.samples)
        elif hasattr(self._reader, "iter_targets"):
            yield from self._reader.iter_targets()
        else:
            holder = self._reader if self._reader is not None else self._data
            targets = getattr(holder, "targets", None)
            if targets is None:
                targets = [self._data[index][1] for index in range(len(self._data))]
            yield from targets.tolist() if hasattr(targets, "tolist") else targets

    def samples(self) -> Iterator[tuple[Image.Image, Any]]:
        """Images and labels of a data set without random access, in order.

        Raises:
            DataError: An image that the reader cannot read, or would pass over.
        """
        passed_over = _Warnings()
        logger = logging.getLogger("timm.data.readers")
        level, propagate = logger.level, logger.propagate
        # Whatever the application wants to see: here a warning becomes an error.
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.addHandler(passed_over)
        count = 0
        try:
            for sample in self._data:
                passed_over.check(self.dataset, count)
                yield sample
                count += 1
            passed_over.check(self.dataset, count)
        except _reader_errors() as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.dataset}: image {count} cannot be read: {error}") from error
        finally:
            logger.removeHandler(passed_over)
            logger.setLevel(level)
            logger.propagate = propagate
        if count < len(self._data):
            raise DataError(f"{self.dataset}: {len(self._data)} images announced, {count} came")

    def image(self, index: int) -> Image.Image:
        """One image of a data set with random access, decoded; raises what its reader raises."""
        if not isinstance(self._data, ImageDataset):
            image: Image.Image = self._data[index][0]
            return image
        with self._lock:
            file = self._data.reader[index][0]
            with file:
                content = file.read()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return image

    def describe(self, index: int) -> str:
        """The data set, and the image's file or its number where it has none."""
        file = self._file(index)
        return f"{self.dataset}, {f'image {index}' if file is None else file[0]}"

    def identity(self, index: int) -> str:
        """Relative path and size in bytes where the image is a file; else its number."""
        file = self._file(index)
        if file is None:
            return str(index)
        name, size = file
        if size is None:
            return f"{os.path.relpath(name, self.dataset.root)}\0{Path(name).stat().st_size}"
        return f"{name}\0{size}"

    def _file(self, index: int) -> tuple[str, int | None] | None:
        """The path of an image, and its size where it lies in a tar file; None if it is no file."""
        if isinstance(self._reader, ReaderImageInTar):
            member, _, inner_tar = self._reader.samples[index]
            inside = f"{inner_tar.name}/" if inner_tar is not None else ""
            return f"{inside}{member.name}", member.size
        samples = getattr(self._data if self._reader is None else self._reader, "samples", None)
        return None if samples is None or self.in_order_only else (samples[index][0], None)


class _Warnings(logging.Handler):
    """Keeps what timm's readers warn of while they iterate: that is how they pass over a sample."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self._messages.append(record.getMessage())

    def check(self, dataset: TimmDataset, count: int) -> None:
        """Raise DataError where a sample was passed over after the first `count`."""
        if self._messages:
            raise DataError(
                f"{dataset}: a sample after the first {count} cannot be read: {self._messages[0]}"
            )


def _reader_errors() -> tuple[type[Exception], ...]:
    """What timm's readers raise on data that is missing, malformed or not what was asked for."""
    errors: tuple[type[Exception], ...] = (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        ImportError,
        EOFError,
        SyntaxError,
        struct.error,
        tarfile.TarError,
        pickle.UnpicklingError,
    )
    hugging_face = sys.modules.get("datasets")  # its root error inherits from Exception alone
    return (*errors, hugging_face.exceptions.DatasetsError) if hugging_face else errors
