"""Study files in requests: TOML or JSON to nested dictionaries, with the lines of keys."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from glora_search.study.errors import Mistake, StudyFileError, one_line

TOML: Final = "application/toml"
JSON: Final = "application/json"

BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            TOML: {"schema": {"type": "string", "description": "A study file."}},
            JSON: {"schema": {"type": "object", "description": "A study file as JSON."}},
        },
    }
}
"""For the OpenAPI document: what routes take that take a study file."""

_HEADER: Final = re.compile(r"\s*\[\s*([A-Za-z0-9_.\-\s]+?)\s*\]\s*(#.*)?")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_.\-]+)\s*=")


@dataclass(frozen=True)
class Document:
    """A study file, not checked yet.

    Args:
        table: Nested dictionaries, as JSON can hold them.
        lines: The lines of its keys, where it is TOML; counted from 1.
    """

    table: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)


def read_document(body: bytes, media_type: str) -> Document:
    """The study file in a request's body.

    Args:
        body: As received.
        media_type: TOML or JSON, without parameters.

    Raises:
        StudyFileError: It cannot be read.
    """
    try:
        text = body.decode("utf-8")
        if media_type == JSON:
            return Document(_checked(json.loads(text, parse_constant=_refuse)))
        return Document(_checked(tomllib.loads(text)), _lines(text))
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except ValueError as error:  # of JSON, TOML, UTF-8, and of numbers that JSON cannot hold
        raise _unreadable(one_line(error, limit=300)) from None


def _unreadable(why: str) -> StudyFileError:
    return StudyFileError.of("the study", [Mistake("", f"it cannot be read: {why}")])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _checked(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"expected a table of sections, got {type(table).__name__}")
    # Dates become texts, as everywhere; numbers and texts have to survive a way through files.
    text = json.dumps(table, default=str, allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    plain: dict[str, Any] = json.loads(text)
    return plain


def _lines(text: str) -> dict[str, int]:
    """Where keys stand, as far as a look at each line tells."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            section = re.sub(r"\s", "", header[1])
            found.setdefault(section, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{section}.{key[1]}" if section else key[1], number)
    return found
