"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 by 8 pixels.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998 (its test part). They need no download, so the demo and the tests work without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from supernet.data.arrays import ArrayImages
from supernet.data.drawing import draw_stratified
from supernet.data.examples import Examples, LabelSpace, check_split_name
from supernet.errors import DataError


@dataclass(frozen=True)
class DigitsSource:
    """Some of the ten digits as few-shot data: train and val drawn by class, test is the rest.

    Args:
        classes: The digits, each once; their positions are the labels.
        n_train: Training images, as evenly over the classes as they have them; None takes all that
            val leaves, and then there is no test split.
        n_val: Validation images, likewise; 0 for none.
        seed: Of the draw.

    Raises:
        DataError: A class that is no digit or comes twice, or more images than there are.
    """

    classes: tuple[int, ...] = (5, 6, 7, 8, 9)
    n_train: int | None = 100
    n_val: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if (
            not self.classes
            or len(set(self.classes)) != len(self.classes)
            or not set(self.classes) <= set(range(10))
        ):
            raise DataError(f"classes must be different digits from 0 to 9; got {self.classes}")
        if (self.n_train or 0) < 0 or self.n_val < 0:
            raise DataError(
                f"n_train and n_val must not be negative; got {self.n_train} and {self.n_val}"
            )

    def label_space(self) -> LabelSpace:
        """The digits in the order of `classes`."""
        return LabelSpace(len(self.classes), tuple(map(str, self.classes)))

    def examples(self, split: str) -> Examples:
        """The images of one split, in scikit-learn's order.

        Raises:
            DataError: An unknown split, one that is empty, or more images wanted than there are.
        """
        check_split_name(split)
        images, digits = _load()
        chosen = np.flatnonzero(np.isin(digits, self.classes))
        labels = [self.classes.index(int(digits[i])) for i in chosen]
        n_train = len(chosen) - self.n_val if self.n_train is None else self.n_train
        if n_train < 0 or n_train + self.n_val > len(chosen):
            raise DataError(
                f"the digits {self.classes} have {len(chosen)} images; "
                f"got n_train={self.n_train} and n_val={self.n_val}"
            )
        parts: dict[str, list[int]] = {}
        rest = list(range(len(chosen)))
        for part, n in (("train", n_train), ("val", self.n_val)):
            drawn = draw_stratified(
                [labels[i] for i in rest],
                [str(chosen[i]) for i in rest],
                n,
                seed=self.seed,
                balanced=True,
            )
            parts[part] = [rest[i] for i in drawn]
            rest = sorted(set(rest) - set(parts[part]))
        parts["test"] = rest
        if not parts[split]:
            raise DataError(
                f"the {split} split of the digits is empty: n_train={self.n_train}, "
                f"n_val={self.n_val} of {len(chosen)} images"
            )
        return Examples(
            images=ArrayImages(images[chosen[parts[split]]], chosen[parts[split]], "digits"),
            labels=tuple(labels[i] for i in parts[split]),
            label_space=self.label_space(),
        )


@lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray]:
    """All images as uint8 (1797, 8, 8), grey values 0..16 spread over 0..255, and the digits."""
    from sklearn.datasets import load_digits  # here, since it takes a second to import

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target
