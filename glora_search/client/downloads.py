"""Saves a zip that a server sends; a download that broke off goes on."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from glora_search.client.errors import ServiceError
from glora_search.study.errors import ArtifactError

if TYPE_CHECKING:
    import httpx

Ask = Callable[[dict[str, str]], AbstractContextManager["httpx.Response"]]
"""Headers to an answer that is no problem."""


def download(ask: Ask, out: Path, study: str) -> None:
    """Save a zip.

    Args:
        ask: Asks for it.
        out: The file. While it is incomplete, it has `.part` at the end of its name.
        study: For messages.

    Raises:
        ArtifactError: It arrived damaged.
    """
    part = out.with_name(f"{out.name}.part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        _save(ask, part, headers)
    except ServiceError as refused:
        if refused.status != 416:  # 416: the server has no bytes after those that are here
            raise
    if have and not _is_whole(part):
        part.unlink()
        _save(ask, part, {})  # the part was of another file: download all of it
    if not _is_whole(part):
        part.unlink()
        raise ArtifactError(f"the export of study {study!r} arrived damaged; try again")
    part.replace(out)


def _save(ask: Ask, part: Path, headers: dict[str, str]) -> None:
    with ask(headers) as answer:
        goes_on = answer.status_code == 206
        with part.open("ab" if goes_on else "wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)


def _is_whole(part: Path) -> bool:
    try:
        with zipfile.ZipFile(part) as packed:
            return packed.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
