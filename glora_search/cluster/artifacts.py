"""Artifacts: a second copy of what a study makes, in a folder that other machines reach.

Local files below `study.directory` are what a study works with. Where `cluster.artifacts` names a
folder, of any file system that fsspec knows, finished supernets, checkpoints of their training and
exports are put there too, and fetched from there where the local file is missing: by a driver on
another machine, or on the same one after its disk was lost.

    <artifacts>/supernets/<identity>.safetensors, <identity>.training.safetensors while it trains
    <artifacts>/backbones/...                     likewise, of backbones that are trained in place
    <artifacts>/<study>/export/                   the winner
"""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.core import url_to_fs

from glora_search.study.credentials import ELSEWHERE, holds_password, scrubbed, without_password
from glora_search.study.errors import ArtifactError, one_line

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """A folder of artifacts, each known by its path in there, with slashes.

    Readers see a file complete or not at all. Every call opens a new connection, because hours can
    pass between two calls, and few servers keep a connection that long.

    Args:
        url: A path, or an fsspec URL without a password; None keeps no copy.
        read_only: Whether to only fetch files, and never put any.

    Raises:
        ArtifactError: There is a password in the URL. Every method: the file system is not known
            or not installed, does not answer, or refuses; one line, in its own words.
    """

    url: str | None
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.url is not None and holds_password(self.url):
            raise ArtifactError(f"{without_password(self.url)!r} holds a password; {ELSEWHERE}")

    def at(self, name: str) -> str | None:
        """Where an artifact is, or would be; None where nothing is kept."""
        return None if self.url is None else f"{self.url}/{name}"

    def check(self) -> None:
        """Try whether a file can be written, read and removed there."""
        if self.url is None:
            return
        name, content = f"probe-{secrets.token_hex(4)}", secrets.token_bytes(16)
        with tempfile.TemporaryDirectory(prefix="glora-search-") as folder:
            sent, back = Path(folder, "sent"), Path(folder, "back")
            sent.write_bytes(content)
            self.put(sent, name)
            if not self.fetch(name, back) or back.read_bytes() != content:
                raise ArtifactError(f"{self.url}: what was written there is not what is read there")
        with self._file_system("remove", name) as (files, path):
            files.rm_file(path)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        if self.url is None:
            return False
        with self._file_system("look for", name) as (files, path):
            return _is_there(files, path)

    def put(self, file: Path, name: str) -> None:
        """Put a local file there, in the place of what is there."""
        if self.url is None or self.read_only:
            return
        with self._file_system("write", name) as (files, path):
            if not _has_folders(files):  # an object store: an object appears as a whole
                files.put_file(str(file), path)
                return
            folder, _, last = path.rpartition("/")
            files.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{last}.{secrets.token_hex(4)}.tmp"
            try:
                files.put_file(str(file), temporary)
                files.mv(temporary, path)
            except BaseException:
                with suppress(Exception):
                    files.rm_file(temporary)
                raise

    def put_missing(self, file: Path, name: str) -> None:
        """Put a local file there, unless there is one."""
        if not self.read_only and not self.has(name):
            self.put(file, name)

    def try_to_put(self, file: Path, name: str, *, anew: bool = False) -> None:
        """As `put_missing`, or with `anew` as `put`; a failure is only logged."""
        try:
            (self.put if anew else self.put_missing)(file, name)
        except ArtifactError as error:
            _log.warning("%s; %s is kept here, and going on", error, file)

    def fetch(self, name: str, file: Path) -> bool:
        """Bring a file here, whole or not at all; False where there is none.

        Args:
            name: The artifact.
            file: Where to; what is there is replaced.
        """
        if self.url is None:
            return False
        with self._file_system("read", name) as (files, path):
            if not _is_there(files, path):
                return False
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
            try:
                files.get_file(path, str(temporary))
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def remove(self, name: str) -> None:
        """Remove a file if it is there; a failure is only logged."""
        if self.url is None or self.read_only:
            return
        try:
            with self._file_system("remove", name) as (files, path):
                if _is_there(files, path):
                    files.rm_file(path)
        except ArtifactError as error:
            _log.warning("%s; it is of no use any more", error)

    def put_folder(self, folder: Path, name: str, files: Sequence[str]) -> None:
        """Put files of a local folder there, unless they are.

        Args:
            folder: The local one.
            name: Of the folder there.
            files: In this order; where the last one is there, all of them are.

        Raises:
            ArtifactError: Also if the last file is there already with other content.
        """
        if self.url is None or self.read_only:
            return
        *first, last = files
        with tempfile.TemporaryDirectory(prefix="glora-search-") as own:
            found = Path(own, last)
            if self.fetch(f"{name}/{last}", found):
                if found.read_bytes() != (folder / last).read_bytes():
                    raise ArtifactError(
                        f"{self.at(name)} holds another export than {folder}, perhaps of another "
                        "study of this name; remove it, or set another cluster.artifacts"
                    )
                return
        for file in (*first, last):
            self.put(folder / file, f"{name}/{file}")

    def fetch_folder(self, name: str, folder: Path, files: Sequence[str]) -> bool:
        """Bring a folder here, whole or not at all, unless something is there; whether it came.

        Args:
            name: The folder there.
            folder: Where to.
            files: As in `put_folder`.
        """
        if self.url is None or (folder.exists() and any(folder.iterdir())):
            return False
        if not self.has(f"{name}/{files[-1]}"):
            return False
        temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
        try:
            if not all(self.fetch(f"{name}/{file}", temporary / file) for file in files):
                return False
            if folder.exists():
                folder.rmdir()
            temporary.replace(folder)
        except OSError as error:
            raise ArtifactError(f"cannot bring {self.at(name)} to {folder}: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return True

    @contextmanager
    def _file_system(self, doing: str, name: str) -> Iterator[tuple[AbstractFileSystem, str]]:
        """A new connection, and the path of an artifact there; every error as one line."""
        assert self.url is not None, "who calls has looked"
        try:
            options: dict[str, Any] = {"skip_instance_cache": True}
            files, root = url_to_fs(self.url, **options)
            yield files, f"{root.rstrip('/')}/{name}"
        except Exception as error:  # each file system has its own: OSError, of FTP, botocore, ...
            text = one_line(scrubbed(f"{type(error).__name__}: {error}"), limit=300)
            raise ArtifactError(f"cannot {doing} {self.at(name)}: {text}") from error


def _is_there(files: AbstractFileSystem, path: str) -> bool:
    try:
        files.info(path)  # its `exists` takes every error for an absence
    except FileNotFoundError:
        return False
    return True


def _has_folders(files: AbstractFileSystem) -> bool:
    """Whether a file system has folders and can rename: others are object stores, on which making
    a folder may make a bucket, and renaming is copying.
    """
    renames = type(files).mv is not AbstractFileSystem.mv
    return renames and not isinstance(files, AsyncFileSystem)
