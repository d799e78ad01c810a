"""How the rows of a run ended, and what they reached, as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_HEAD = ("row", "ended", "seconds", "target", "to reach", "measured", "reached")


def table(records: Iterable[Mapping[str, Any]], *, rehearsal: bool) -> str:
    """A Markdown table with one line a target, and where the figures come from.

    Args:
        records: How rows ended; a row that has not ended has the status `not run`.
        rehearsal: Whether it was one: then no number counts, and none is said to be reached.
    """
    records = list(records)
    lines: list[Sequence[str]] = [_HEAD]
    for record in records:
        seconds = record.get("seconds")
        ended = (record["row"], record["status"], "" if seconds is None else f"{seconds:.0f}")
        judged = record.get("targets", [])
        lines += [(*ended, *_judged(target, rehearsal)) for target in judged]
        if not judged:
            lines.append((*ended, "", "", "", ""))
    return "\n".join(
        [
            *([_REHEARSED] if rehearsal else []),
            *_aligned(lines),
            "",
            *(f"{name}: {', '.join(found)}" for name, found in _origins(records).items()),
            *(
                f"{record['row']} {record['status']}: {_last_line(record)}"
                for record in records
                if record.get("last_words") and record["status"] != "done"
            ),
        ]
    )


_REHEARSED = "A rehearsal with a tiny network on the CPU: none of these numbers counts.\n"


def _judged(target: Mapping[str, Any], rehearsal: bool) -> tuple[str, str, str, str]:
    sense = "at most" if "at most" in target else "at least"
    measured = "none" if target["measured"] is None else f"{target['measured']:.4g}"
    reached = "" if rehearsal else ("yes" if target["reached"] else "NO")
    return target["target"], f"{sense} {target[sense]:g}", measured, reached


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [line(lines[0]), rule, *map(line, lines[1:])]


def _origins(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Devices, versions and commits that the figures come from: one of each, or it is seen here."""
    found: dict[str, dict[str, None]] = {"device": {}, "machine": {}, "versions": {}, "commit": {}}
    for record in records:
        for name, known in found.items():
            value = record.get("figures", {}).get(name)
            if value:
                text = value if isinstance(value, str) else json.dumps(value)
                known[text] = None
    return {name: list(known) for name, known in found.items() if known}


def _last_line(record: Mapping[str, Any]) -> str:
    return str(record["last_words"]).strip().splitlines()[-1]
