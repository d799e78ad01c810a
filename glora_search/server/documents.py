"""Study files in requests: TOML or JSON to nested dictionaries, with the lines of keys."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from glora_search.study.errors import Mistake, StudyFileError, one_line
from glora_search.study.reading import apply_overrides

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

_DEEPEST: Final = 50  # levels; a study file has four
_TOO_DEEP: Final = "it is nested too deeply"
_BRACKETS: Final = re.compile(r"[\[\]{}]")
_TOKEN: Final = re.compile(
    r"""
    (?P<part> [A-Za-z0-9_-]+
      | \"{3} (?: [^"\\] | \\. | "{1,2}(?!") )*+ "{3,5}
      | '{3} (?: [^'] | '{1,2}(?!') )*+ '{3,5}
      | " (?: [^"\\\n] | \\[^\n] )*+ "
      | ' [^'\n]*+ ' )
    | (?P<open> ["'] )
    | (?P<skipped> [ \t]+ | \#[^\n]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
"""TOML as far as it matters here: words and strings, a quote that nothing closes, blanks."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.\-\s]+")
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
        _check_brackets(text)
        if media_type == JSON:
            return Document(_checked(json.loads(text, parse_constant=_refuse)))
        _check_dotted(text)
        return Document(_checked(tomllib.loads(text)), _lines(text))
    except ValueError as error:  # of JSON, TOML, UTF-8, and of numbers that JSON cannot hold
        raise _unreadable(one_line(error, limit=300)) from None


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides of a study file as the tables that they change.

    Args:
        overrides: `section.key=value`.

    Raises:
        StudyFileError: One cannot be read.
    """
    table: dict[str, Any] = {}
    try:
        for override in overrides:
            _check_brackets(override)
            _check_dotted(override)
        apply_overrides(table, overrides)
        return _checked(table)
    except StudyFileError:
        raise
    except ValueError as error:
        raise _unreadable(one_line(error, limit=300)) from None


def _check_brackets(text: str) -> None:
    """Raise ValueError for a text that parsers would follow to the end of their stack. Brackets
    within texts count as well, which no study file minds.
    """
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            raise ValueError(_TOO_DEEP)


def _check_dotted(text: str) -> None:
    """Raise ValueError for a key of so many parts that the parser's notes on it fill the memory:
    they grow with the square of the parts. One look at each character, up to where the parser ends.
    """
    parts, after_dot = 0, False
    for found in _TOKEN.finditer(text):
        if found.lastgroup == "open":
            return  # the parser refuses the text there
        if found.lastgroup == "skipped":
            continue
        if found.lastgroup == "part":
            parts = parts + 1 if after_dot else 1
        elif found[0] != ".":
            parts = 0
        after_dot = found[0] == "."
        if parts > _DEEPEST:
            raise ValueError(_TOO_DEEP)


def _check_depth(table: dict[str, Any]) -> None:
    """Likewise for what is nested in any other way."""
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _unreadable(why: str) -> StudyFileError:
    return StudyFileError.of("the study", [Mistake("", f"it cannot be read: {why}")])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _checked(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"expected a table of sections, got {type(table).__name__}")
    _check_depth(table)
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
        if (header := _header(line)) is not None:
            section = header
            found.setdefault(section, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{section}.{key[1]}" if section else key[1], number)
    return found


def _header(line: str) -> str | None:
    """The name of the table that a line begins; None where it begins none."""
    opened, closed, rest = line.strip().partition("]")
    name, rest = opened.removeprefix("["), rest.strip()
    if opened == name or not closed or (rest and not rest.startswith("#")):
        return None
    return re.sub(r"\s", "", name) if _NAME.fullmatch(name) else None
