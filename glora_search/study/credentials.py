"""Passwords in URLs: where one may not be, and how a text is shown without it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

ELSEWHERE: Final = (
    "credentials go into the environment or a file of the file system's own (such as "
    "AWS_ACCESS_KEY_ID or ~/.aws), or of fsspec (FSSPEC_FTP_PASSWORD, ~/.config/fsspec/*.json)"
)
"""Where those of artifacts go."""

_USER_INFO: Final = re.compile(r"(?<=://)[^\s/@:]*:\S*@")


def holds_password(value: str) -> bool:
    """Whether a URL has a password before its host, as in `s3://key:secret@bucket`.

    What could be a piece of one, as in `ftp://user:a/b@host` or `user:secret@host`, counts as one.
    """
    value = unquote(value)
    _, separator, rest = value.partition("://")
    return ":" in (rest if separator else value).rpartition("@")[0]


def without_password(value: str) -> str:
    """A value as it may be shown: what could be a user or a password is `***`; paths are not."""
    before, at, after = value.rpartition("@")
    if at and ("/" not in before or "://" in unquote(before) or holds_password(value)):
        return f"***@{after}"
    return value


def scrubbed(message: str) -> str:
    """A message of another program with `***` for users and passwords in its URLs."""
    return _USER_INFO.sub("***@", message)
