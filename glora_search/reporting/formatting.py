"""How numbers are written in the report, and how sure one can be of an accuracy."""

from __future__ import annotations

import math
from typing import Final

MISSING: Final = "–"  # noqa: RUF001, a dash as tables have it


def standard_error(top1: float | None, n_images: int | None) -> float | None:
    """The standard error of an accuracy, a fraction: sqrt(p (1 - p) / n).

    Args:
        top1: p, the fraction of images that is right; None where it is not known.
        n_images: n, the images that it was counted on; None where it is not known.

    Returns:
        None where either is not known.
    """
    if top1 is None or not n_images or not 0 <= top1 <= 1:
        return None
    return math.sqrt(top1 * (1 - top1) / n_images)


def percent(fraction: float | None, n_images: int | None = None) -> str:
    """`0.82` as `82.0 %`; with a second decimal where there are images enough to fill it."""
    if fraction is None:
        return MISSING
    return f"{100 * fraction:.{2 if (n_images or 0) >= 2000 else 1}f} %"


def percent_with_error(top1: float | None, n_images: int | None) -> str:
    """`82.0 ± 2.7 %`, the second number the standard error; without it where it is not known."""
    error = standard_error(top1, n_images)
    if top1 is None or error is None:
        return percent(top1, n_images)
    digits = 2 if (n_images or 0) >= 2000 else 1
    return f"{100 * top1:.{digits}f} ± {100 * error:.{digits}f} %"


def percent_with_interval(mean: float, low: float, high: float) -> str:
    """`79.0 [77.1, 80.9] %`: a fraction with the ends of its interval."""
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] %"


def points_with_interval(mean: float, low: float, high: float) -> str:
    """`+1.2 [-0.3, +2.7]`: a difference of two fractions, in points, with its interval's ends."""
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def count(number: int | None) -> str:
    """`12345` as `12,345`."""
    return MISSING if number is None else f"{number:,}"


def loss(value: float | None) -> str:
    """Four decimals: what a validation loss is stable to across machines, about."""
    return MISSING if value is None else f"{value:.4f}"


def seconds(duration_s: float) -> str:
    """`75.2` as `75 s`, `4000` as `1 h 07 min`."""
    if duration_s < 120:
        return f"{duration_s:.0f} s" if duration_s >= 10 else f"{duration_s:.1f} s"
    minutes = round(duration_s / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def plural(number: int, noun: str) -> str:
    """`1 subnet`, `1,200 subnets`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
