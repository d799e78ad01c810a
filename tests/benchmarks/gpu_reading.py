"""What a row left: its figures, or its last words."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Literal

Reads = Literal["json", "junit"]
"""Where a row leaves its figures: as a JSON line on stdout, or in pytest's junit file."""


class NoFiguresError(ValueError):
    """A row that ended without the figures that it was run for."""


def figures_of(reads: Reads, work: Path, *, complete: bool) -> dict[str, Any]:
    """The figures of a row.

    Args:
        reads: As in `Row`.
        work: The folder of the row.
        complete: Whether a test that was skipped is a failure.

    Raises:
        NoFiguresError: There are none, or tests did not pass.
    """
    return _of_tests(work, complete) if reads == "junit" else _of_json(work)


def _of_json(work: Path) -> dict[str, Any]:
    lines = (work / "stdout.txt").read_text(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            figures = json.loads(line)
        except ValueError:
            continue
        if isinstance(figures, dict):
            return figures
    raise NoFiguresError("it printed no line of JSON")


def _of_tests(work: Path, complete: bool) -> dict[str, Any]:
    try:
        (suite,) = ET.parse(work / "tests.xml").getroot().iter("testsuite")
    except (OSError, ET.ParseError, ValueError) as error:
        raise NoFiguresError(f"pytest left no result: {error}") from error
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    told = ", ".join(f"{name} {value}" for name, value in {**count, "passed": passed}.items())
    if count["failures"] or count["errors"] or (complete and (count["skipped"] or not passed)):
        raise NoFiguresError(f"not all tests passed: {told}")
    return {"passed": passed, **count}


def last_words(work: Path, reads: Reads, *, lines: int = 15) -> str:
    """The end of what a row said: on stderr, or on stdout where it is pytest."""
    for name in ("stdout.txt", "stderr.txt") if reads == "junit" else ("stderr.txt", "stdout.txt"):
        try:
            said = (work / name).read_text(errors="replace").strip()
        except OSError:
            continue
        if said:
            return "\n".join(said.splitlines()[-lines:])[-3000:]
    return ""
