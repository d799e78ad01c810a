"""Tasks that are drawn on demand, after the structured and specialised groups of VTAB.

Grey images of 20 by 20 pixels with shapes, textures, clutter and noise, drawn by numpy from a seed:
a test split can have any size, and nothing is downloaded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from supernet.data.arrays import ArrayImages
from supernet.data.examples import SPLITS, Examples, LabelSpace, check_split_name
from supernet.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

SIDE: Final = 20
"""Pixels of an image's side."""

KINDS: Final = ("disc", "square", "triangle", "cross", "ring", "bar")
_CHUNK: Final = 1000


@dataclass(frozen=True)
class DrawnSource:
    """One task. Every split is drawn from the task's name, its own name and the seed.

    Classes are drawn uniformly, so a split has about as many images of each.

    Args:
        task: A name of DRAWN_TASKS.
        n_train: Training images.
        n_val: Validation images; 0 for none.
        n_test: Test images; 0 for none.
        seed: Of the draw.

    Raises:
        DataError: An unknown task or a negative number.
    """

    task: str
    n_train: int = 800
    n_val: int = 200
    n_test: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in DRAWN_TASKS:
            raise DataError(f"no drawn task {self.task!r}; accepted: {', '.join(DRAWN_TASKS)}")
        if min(self.n_train, self.n_val, self.n_test) < 0:
            raise DataError("n_train, n_val and n_test must not be negative")

    def label_space(self) -> LabelSpace:
        """The classes of the task."""
        names = DRAWN_TASKS[self.task].classes
        return LabelSpace(len(names), names)

    def examples(self, split: str) -> Examples:
        """Draw a split.

        Raises:
            DataError: An unknown split, or one without images.
        """
        check_split_name(split)
        n = {"train": self.n_train, "val": self.n_val, "test": self.n_test}[split]
        if not n:
            raise DataError(f"the {split} split of the drawn task {self.task!r} is empty")
        entropy = [zlib.crc32(self.task.encode()), SPLITS.index(split), self.seed]
        rng = np.random.default_rng(entropy)
        task = DRAWN_TASKS[self.task]
        labels = rng.integers(len(task.classes), size=n)
        parts = np.array_split(labels, -(-n // _CHUNK))  # float images of a chunk at a time
        pixels = np.concatenate([_to_bytes(task.draw(rng, part)) for part in parts])
        name = f"drawn/{self.task}/{split}/{self.seed}"
        return Examples(
            images=ArrayImages(pixels, np.arange(n), name),
            labels=tuple(int(label) for label in labels),
            label_space=self.label_space(),
        )


@dataclass(frozen=True)
class DrawnTask:
    """A task: the names of its classes, and a function that draws an image of each label.

    `draw(rng, labels)` gives float images (n, SIDE, SIDE), about 0 (black) to 1 (white).
    """

    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator, Labels], Floats]


@dataclass
class _Shapes:
    """k shapes in each of n images: arrays (n, k). The last one is drawn on top.

    Args:
        kind: Index into KINDS.
        x: Centre, pixels from the left.
        y: Centre, pixels from the top.
        radius: Pixels.
        angle: Radians.
        grey: 0 to 1.
    """

    kind: Labels
    x: Floats
    y: Floats
    radius: Floats
    angle: Floats
    grey: Floats


def _random_shapes(
    rng: np.random.Generator, n: int, k: int, *, radius: tuple[float, float], margin: float
) -> _Shapes:
    """Shapes of all kinds, brighter than the background, anywhere inside of the margin."""
    return _Shapes(
        kind=rng.integers(len(KINDS), size=(n, k)),
        x=rng.uniform(margin, SIDE - margin, (n, k)),
        y=rng.uniform(margin, SIDE - margin, (n, k)),
        radius=rng.uniform(*radius, (n, k)),
        angle=rng.uniform(0, 2 * np.pi, (n, k)),
        grey=rng.uniform(0.65, 1.0, (n, k)),
    )


def _apart(rng: np.random.Generator, shapes: _Shapes, gap: float, margin: float) -> None:
    """Move shapes of an image until their rims are `gap` pixels apart; after 60 tries leave it."""
    k = shapes.x.shape[1]
    for i in range(1, k):
        for _ in range(60):
            distance = np.hypot(
                shapes.x[:, i : i + 1] - shapes.x[:, :i], shapes.y[:, i : i + 1] - shapes.y[:, :i]
            )
            room = shapes.radius[:, i : i + 1] + shapes.radius[:, :i] + gap
            close = (distance < room).any(axis=1)
            if not close.any():
                break
            shapes.x[close, i] = rng.uniform(margin, SIDE - margin, close.sum())
            shapes.y[close, i] = rng.uniform(margin, SIDE - margin, close.sum())


def _background(rng: np.random.Generator, n: int) -> Floats:
    """A dark, slowly varying field: a random linear ramp in each image."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5
    slope = rng.uniform(-0.15, 0.15, (2, n, 1, 1))
    ramp: Floats = slope[0] * x + slope[1] * y
    return rng.uniform(0.15, 0.4, (n, 1, 1)) + ramp


def _paint(images: Floats, shapes: _Shapes) -> Floats:
    """Draw the shapes onto the images, in place; shapes with a radius of 0 do not appear."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    for i in range(shapes.x.shape[1]):
        for kind in range(len(KINDS)):
            at = np.flatnonzero((shapes.kind[:, i] == kind) & (shapes.radius[:, i] > 0))
            dx, dy = x - _column(shapes.x, at, i), y - _column(shapes.y, at, i)
            angle, radius = _column(shapes.angle, at, i), _column(shapes.radius, at, i)
            u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
            cover = np.clip(0.5 - _distance(kind, u, v, radius), 0, 1)
            images[at] += cover * (_column(shapes.grey, at, i) - images[at])
    return images


def _column(values: Floats, at: NDArray[np.intp], i: int) -> Floats:
    """Shape i of the images `at`, (n, 1, 1)."""
    column: Floats = values[at, i][:, None, None]
    return column


def _distance(kind: int, u: Floats, v: Floats, r: Floats) -> Floats:
    """About the signed distance in pixels to the rim of a shape at the origin; negative inside."""
    match KINDS[kind]:
        case "disc":
            return np.hypot(u, v) - r
        case "square":
            return np.maximum(abs(u), abs(v)) - 0.85 * r
        case "triangle":
            sides = np.maximum(0.866 * abs(u) + 0.5 * v, -v)
            return sides - 0.6 * r
        case "cross":
            long, short = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
            return np.maximum(long - r, short - 0.33 * r)
        case "ring":
            return abs(np.hypot(u, v) - 0.75 * r) - 0.28 * r
        case _:
            return np.maximum(abs(u) - 1.1 * r, abs(v) - 0.35 * r)


def _clutter(rng: np.random.Generator, images: Floats, k: int) -> Floats:
    """Up to `k` small dim fragments a image, below whatever is drawn next."""
    n = len(images)
    fragments = _random_shapes(rng, n, k, radius=(0.7, 1.5), margin=0.0)
    fragments.grey = rng.uniform(0.0, 0.75, (n, k))
    fragments.radius *= rng.random((n, k)) < 0.7
    return _paint(images, fragments)


def _noisy(rng: np.random.Generator, images: Floats, sigma: float) -> Floats:
    return images + rng.normal(0, sigma, images.shape)


def _to_bytes(images: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def _bins(n: int) -> tuple[str, ...]:
    return tuple(f"{i + 1} of {n}" for i in range(n))


def _within(rng: np.random.Generator, labels: Labels, n: int) -> Floats:
    """A number of [0, 1) in the label's bin of n."""
    return (labels + rng.random(len(labels))) / n


# One function a task


def _draw_shapes(rng: np.random.Generator, labels: Labels) -> Floats:
    n = len(labels)
    images = _clutter(rng, _background(rng, n), 3)
    shape = _random_shapes(rng, n, 1, radius=(2.5, 5.0), margin=4.0)
    shape.kind[:, 0] = labels // 4
    half = SIDE / 2 - 4.0
    shape.x[:, 0] = 4.0 + half * (labels % 2 + rng.random(n))
    shape.y[:, 0] = 4.0 + half * (labels // 2 % 2 + rng.random(n))
    return _noisy(rng, _paint(images, shape), 0.06)


def _draw_count(rng: np.random.Generator, labels: Labels) -> Floats:
    n, most = len(labels), len(DRAWN_TASKS["count"].classes)
    shapes = _random_shapes(rng, n, most, radius=(1.4, 2.4), margin=2.0)
    _apart(rng, shapes, 0.7, 2.0)
    shapes.radius *= np.arange(most) <= labels[:, None]
    return _noisy(rng, _paint(_background(rng, n), shapes), 0.08)


def _draw_position(rng: np.random.Generator, labels: Labels) -> Floats:
    n = len(labels)
    images = _clutter(rng, _background(rng, n), 5)
    shape = _random_shapes(rng, n, 1, radius=(2.0, 3.5), margin=3.0)
    shape.x[:, 0] = 3.0 + (SIDE - 6.0) * _within(rng, labels, 8)
    return _noisy(rng, _paint(images, shape), 0.08)


def _draw_orientation(rng: np.random.Generator, labels: Labels) -> Floats:
    n = len(labels)
    images = _clutter(rng, _background(rng, n), 4)
    shape = _random_shapes(rng, n, 1, radius=(3.5, 5.5), margin=6.0)
    shape.kind[:, 0] = KINDS.index("bar")
    shape.angle[:, 0] = np.pi * _within(rng, labels, 8)
    return _noisy(rng, _paint(images, shape), 0.1)


def _draw_size(rng: np.random.Generator, labels: Labels) -> Floats:
    n = len(labels)
    shape = _random_shapes(rng, n, 1, radius=(2.0, 6.0), margin=5.0)
    shape.radius[:, 0] = 2.0 + 4.0 * _within(rng, labels, 6)
    return _noisy(rng, _paint(_background(rng, n), shape), 0.05)


def _draw_texture(rng: np.random.Generator, labels: Labels) -> Floats:
    """Stripes, checks, rings and blobs, each fine or coarse, turned and shifted at random."""
    n = len(labels)
    y, x = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
    angle, phase = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    period = np.where(labels % 2, rng.uniform(5.0, 7.5, n), rng.uniform(3.2, 4.8, n))
    turn = 2 * np.pi / period[:, None, None]
    u = (x * np.cos(angle) + y * np.sin(angle)) * turn + phase[0]
    v = (y * np.cos(angle) - x * np.sin(angle)) * turn + phase[1]
    centre = rng.uniform(-8, 8, (2, n, 1, 1))
    rings = np.hypot(x - centre[0], y - centre[1]) * turn + phase[0]
    patterns = (
        np.sin(u),
        np.sign(np.sin(u) * np.sin(v)),
        np.sin(rings),
        np.maximum(np.sin(u), np.sin(v)),
    )
    images = np.choose(labels[:, None, None] // 2, patterns)
    contrast = rng.uniform(0.1, 0.25, (n, 1, 1))
    return _noisy(rng, 0.45 + contrast * images, 0.2)


def _draw_nearer(rng: np.random.Generator, labels: Labels) -> Floats:
    """Two overlapping shapes, one bright, one dark; the label is which hides the other, the left
    one or the right one.
    """
    n = len(labels)
    images = _clutter(rng, _background(rng, n), 3)
    pair = _random_shapes(rng, n, 2, radius=(3.5, 5.0), margin=6.5)
    pair.kind = rng.integers(3, size=(n, 2))  # full shapes: disc, square, triangle
    side = np.where(labels == 1, 1.0, -1.0)  # the second one is drawn on top
    direction, gap = rng.uniform(-np.pi / 4, np.pi / 4, n), rng.uniform(3.0, 4.5, n)
    pair.x[:, 1] = pair.x[:, 0] + side * gap * np.cos(direction)
    pair.y[:, 1] = pair.y[:, 0] + gap * np.sin(direction)
    bright, dark = rng.uniform(0.6, 0.9, n), rng.uniform(0.0, 0.15, n)
    first = rng.random(n) < 0.5
    pair.grey[:, 0] = np.where(first, bright, dark)
    pair.grey[:, 1] = np.where(first, dark, bright)
    return _noisy(rng, _paint(images, pair), 0.08)


def _draw_distance(rng: np.random.Generator, labels: Labels) -> Floats:
    """Two shapes; the label is how far one is to the right of the other. Their heights differ."""
    n = len(labels)
    pair = _random_shapes(rng, n, 2, radius=(1.8, 2.8), margin=2.5)
    far = 3.0 + 11.0 * _within(rng, labels, 6)
    pair.x[:, 0] = 2.5 + rng.random(n) * (SIDE - 5.0 - far)
    pair.x[:, 1] = pair.x[:, 0] + far
    return _noisy(rng, _paint(_background(rng, n), pair), 0.06)


def _draw_symmetry(rng: np.random.Generator, labels: Labels) -> Floats:
    """A pattern of 10 by 10 cells that is mirrored left to right, top to bottom, both or not."""
    n = len(labels)
    cells = rng.random((n, 10, 10))
    cells += np.where(rng.random((n, 10, 10)) < 0.3, 0.8, 0.0)
    sideways, upright = cells.copy(), cells.copy()
    sideways[:, :, 5:] = cells[:, :, 4::-1]
    upright[:, 5:] = cells[:, 4::-1]
    both = sideways.copy()
    both[:, 5:] = sideways[:, 4::-1]
    images = np.choose(labels[:, None, None], (cells, sideways, upright, both)) / 1.8
    return _noisy(rng, images.repeat(2, axis=1).repeat(2, axis=2), 0.08)


def _draw_cluttered(rng: np.random.Generator, labels: Labels) -> Floats:
    """A bright bar above four dim ones; the label is the direction of the bright one."""
    n = len(labels)
    others = _random_shapes(rng, n, 4, radius=(2.5, 4.0), margin=3.0)
    others.kind[:] = KINDS.index("bar")
    others.grey = rng.uniform(0.3, 0.5, (n, 4))
    bar = _random_shapes(rng, n, 1, radius=(3.5, 5.0), margin=5.0)
    bar.kind[:, 0] = KINDS.index("bar")
    bar.angle[:, 0] = np.pi * _within(rng, labels, 6)
    bar.grey[:, 0] = rng.uniform(0.75, 1.0, n)
    return _noisy(rng, _paint(_paint(_background(rng, n), others), bar), 0.1)


PRETRAINING_TASK: Final = "shapes"
"""On what the suite's backbone is pretrained: kind and quadrant of a shape, 24 classes."""

DRAWN_TASKS: Final[dict[str, DrawnTask]] = {
    "shapes": DrawnTask(
        tuple(f"{kind} {where}" for kind in KINDS for where in ("nw", "ne", "sw", "se")),
        _draw_shapes,
    ),
    "count": DrawnTask(tuple("123456"), _draw_count),
    "position": DrawnTask(_bins(8), _draw_position),
    "orientation": DrawnTask(_bins(8), _draw_orientation),
    "size": DrawnTask(_bins(6), _draw_size),
    "texture": DrawnTask(
        tuple(
            f"{p} {f}" for p in ("stripes", "checks", "rings", "blobs") for f in ("fine", "coarse")
        ),
        _draw_texture,
    ),
    "nearer": DrawnTask(("left", "right"), _draw_nearer),
    "distance": DrawnTask(_bins(6), _draw_distance),
    "symmetry": DrawnTask(("none", "left-right", "top-bottom", "both"), _draw_symmetry),
    "cluttered": DrawnTask(_bins(6), _draw_cluttered),
}
"""All tasks by name: the one for pretraining, then those of the suite."""
