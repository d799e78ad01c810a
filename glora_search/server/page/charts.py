"""What a chart is, before it is drawn: scales with their ticks, and shapes as SVG paths.

A plot is a square of 1000 by 1000 units that the browser stretches to the place it has; lines and
dots keep their width, and labels stand outside of it as text. So one drawing fits a phone and a
wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SIDE: Final = 1000
"""Units of a plot's side; y goes down."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A label of an axis.

    Args:
        at: Its place in per cent of the axis, from the left or from the top.
        text: What it says.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """From values to an axis.

    Args:
        low: The value at its beginning.
        high: The value at its end, above `low`.
        log: Whether equal ratios are equally far apart.
    """

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value stands: 0 at the beginning of the axis, 1 at its end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within the scale, at most about `most`."""
        if self.log:
            return _log_ticks(self.low, self.high, most)
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * k for k in range(first, last + 1)]


def scale_of(values: Iterable[float], *, log: bool = False, margin: float = 0.06) -> Scale:
    """A scale that holds all values with room at both ends; from 0 to 1 where there are none."""
    known = list(values)
    if not known:
        return Scale(0.0, 1.0)
    low, high = min(known), max(known)
    if log:
        room = (high / low) ** margin
        return Scale(low / room, high * room, log=True)
    room = margin * ((high - low) or abs(high) or 1.0)
    return Scale(low - room, high + room)


def number_texts(values: Sequence[float]) -> list[str]:
    """Labels for the ticks of an axis, with as many decimals as tell them apart."""
    gaps = [abs(b - a) for a, b in pairwise(values) if a != b]
    step = min(gaps, default=abs(values[0]) if values and values[0] else 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:,.{decimals}f}" for value in values]


@dataclass(frozen=True)
class Shape:
    """A path of a plot.

    Args:
        css: The class that gives its colour and width.
        d: The path, in the units of the plot.
    """

    css: str
    d: str


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Args:
        css: As that of the shape.
        text: What the shape stands for.
    """

    css: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart, ready for the template.

    Args:
        told: What it shows, in a sentence for those who do not see it.
        x_title: What stands on the horizontal axis, with its unit.
        y_title: What stands on the vertical axis, with its unit.
        x_ticks: Labels of the horizontal axis.
        y_ticks: Labels of the vertical axis.
        shapes: What is drawn, the lowest first.
        keys: The legend.
    """

    told: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    shapes: tuple[Shape, ...]
    keys: tuple[Key, ...] = ()


def x_ticks(scale: Scale, most: int = 5) -> tuple[Tick, ...]:
    """The labels of a horizontal axis."""
    values = scale.ticks(most)
    placed = zip(values, number_texts(values), strict=True)
    return tuple(Tick(round(100 * scale.share(value), 2), text) for value, text in placed)


def y_ticks(scale: Scale, most: int = 5) -> tuple[Tick, ...]:
    """The labels of a vertical axis, whose beginning is below."""
    values = scale.ticks(most)
    placed = zip(values, number_texts(values), strict=True)
    return tuple(Tick(round(100 - 100 * scale.share(value), 2), text) for value, text in placed)


def placed(points: Iterable[Point], x: Scale, y: Scale) -> list[tuple[int, int]]:
    """Points in whole units of the plot."""
    return [(round(SIDE * x.share(a)), round(SIDE - SIDE * y.share(b))) for a, b in points]


def dots(points: Iterable[tuple[int, int]], *, step: int = 1) -> str:
    """A path of dots: strokes without length, whose round ends are what one sees.

    Args:
        points: Their places; dots at the same place are one.
        step: To a multiple of what places are rounded; see `step_for`.
    """
    return "".join(f"M{x} {y}h0" for x, y in _distinct(points, step))


def step_for(groups: Sequence[Sequence[tuple[int, int]]], most: int = 9000) -> int:
    """How coarse dots have to be for a chart to stay short, whatever the number of points.

    Up to some thousands of dots it is 1, for 10,000 a pixel or two.

    Args:
        groups: The points of each path of the chart.
        most: Dots of the chart; each is some ten bytes.
    """
    step = 1
    while sum(len(_distinct(points, step)) for points in groups) > most:
        step += 1
    return step


def _distinct(points: Iterable[tuple[int, int]], step: int) -> dict[tuple[int, int], None]:
    if step == 1:
        return dict.fromkeys(points)
    return dict.fromkeys((step * (x // step), step * (y // step)) for x, y in points)


def stairs(points: Sequence[tuple[int, int]], end: int) -> str:
    """A path of steps: each value holds until the next point, the last one until `end`."""
    if not points:
        return ""
    x, y = points[0]
    parts = [f"M{x} {y}"]
    for x, new in points[1:]:
        if new != y:
            parts.append(f"H{x}V{new}")
            y = new
    return "".join([*parts, f"H{end}"])


def _round_step(least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= least * (1 - 1e-9))


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= most + 2:
            return found
    return found[:: -(-len(found) // most)]
