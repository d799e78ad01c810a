"""How the points of each operator look, wherever they are drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Mark:
    """How a kind of point is drawn: a colour, and a symbol for those who print in grey."""

    colour: str
    symbol: str


_KNOWN_OPERATORS: Final = {
    "random": Mark("#8C96A3", "circle"),
    "mutation": Mark("#0072B2", "circle"),
    "crossover": Mark("#E69F00", "diamond"),
}
_MORE_MARKS: Final = (
    Mark("#009E73", "square"),
    Mark("#CC79A7", "triangle-up"),
    Mark("#56B4E9", "triangle-down"),
    Mark("#000000", "circle-open"),
)


def operator_marks(operators: Iterable[str]) -> dict[str, Mark]:
    """A mark for each operator: fixed for those of the evolution, then one after another."""
    present = set(operators)
    marks = {name: mark for name, mark in _KNOWN_OPERATORS.items() if name in present}
    for k, name in enumerate(sorted(present - set(_KNOWN_OPERATORS))):
        marks[name] = _MORE_MARKS[k % len(_MORE_MARKS)]
    return marks
