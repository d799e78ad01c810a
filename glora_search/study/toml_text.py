"""The study file as a person would write it: nested JSON as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(table: Mapping[str, Any]) -> str:
    """TOML that reads back as `table`, without its nulls: TOML has none, and absent means null.

    Args:
        table: What JSON can hold, with tables (mappings) at any depth.
    """
    return "\n\n".join(_sections((), table))


def _sections(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [
        f"{_key(key)} = {value_text(value)}"
        for key, value in table.items()
        if value is not None and key not in tables
    ]
    if path and (lines or not tables):  # a table that only holds tables needs no header
        lines.insert(0, f"[{'.'.join(map(_key, path))}]")
    sections = ["\n".join(lines)] if lines else []
    for key, value in tables.items():
        sections += _sections((*path, key), value)
    return sections


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def value_text(value: Any) -> str:
    """The TOML of one value, on one line.

    Args:
        value: What JSON can hold, but no null.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{_key(k)} = {value_text(v)}" for k, v in value.items() if v is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value if item is not None)}]"
    return _string(str(value))


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
