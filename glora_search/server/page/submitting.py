"""Submit a study file: its text, its mistakes beside their lines, and what it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from glora_search.operations.serving import create_study
from glora_search.server.admission import admitted
from glora_search.server.documents import TOML, Document, read_document
from glora_search.server.problems import line_of
from glora_search.server.service import Service
from glora_search.study.errors import Mistake, StudyFileError
from glora_search.study.reading import parse_study

_AT_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")
"""What the parser says of a text that is no TOML."""


@dataclass(frozen=True)
class Line:
    """A line of a study file.

    Args:
        text: The line.
        mistakes: What is wrong with it.
    """

    text: str
    mistakes: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """What became of a text.

    Args:
        name: The study's name; empty where there are mistakes.
        n_candidates: How many subnets it would evaluate.
        lines: Of the text.
        elsewhere: Mistakes that belong to no line, such as a key that is missing.
    """

    name: str
    n_candidates: int
    lines: tuple[Line, ...]
    elsewhere: tuple[str, ...]

    @property
    def n_mistakes(self) -> int:
        """How many mistakes there are."""
        return len(self.elsewhere) + sum(len(line.mistakes) for line in self.lines)


def check_text(service: Service, text: str, *, submit: bool) -> Checked:
    """Check a study file, and create and start the study if it has no mistake.

    Args:
        service: Where studies run.
        text: TOML.
        submit: Whether to create and start it; else it is only checked.

    Raises:
        StudyExistsError: There is a study of that name.
    """
    document = Document({})
    try:
        document = read_document(text.encode(), TOML)
        table = admitted(document.table, service.settings)
    except StudyFileError as error:
        return _with_mistakes(text, error.mistakes or (Mistake("", str(error)),), document.lines)
    file = parse_study(table, origin="the study")
    if submit:
        create_study(service.database, table, service.runner)
    planned = file.search.population * (file.search.generations + 1)
    return Checked(file.study.name, planned, _lines(text, {}), ())


def _with_mistakes(text: str, mistakes: tuple[Mistake, ...], lines: dict[str, int]) -> Checked:
    at: dict[int, list[str]] = {}
    elsewhere = []
    for mistake in mistakes:
        found = _AT_LINE.search(mistake.text)
        line = int(found[1]) if found else line_of(mistake.key, lines)
        if line is None:
            elsewhere.append(mistake.text)
        else:
            at.setdefault(line, []).append(mistake.text)
    shown = _lines(text, at)
    elsewhere += [told for line, texts in at.items() if line > len(shown) for told in texts]
    return Checked("", 0, shown, tuple(elsewhere))


def _lines(text: str, at: dict[int, list[str]]) -> tuple[Line, ...]:
    return tuple(
        Line(line, tuple(at.get(number, ())))
        for number, line in enumerate(text.splitlines(), start=1)
    )
