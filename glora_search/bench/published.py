"""Published figures of VTAB-1k with ViT-B/16, to stand beside one's own.

All are the mean of the three group means. The flat mean of the 19 tasks is up to 3.4 points lower
for the same method: say which mean a figure is. The figures are those of the methods' papers, as
the later ones of them (GLoRA, arXiv 2306.07967; PACE, arXiv 2409.17137) put them side by side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final


@dataclass(frozen=True)
class PublishedFigure:
    """One line of the literature.

    Args:
        method: As its authors call it.
        n_params: Trainable parameters without the head.
        mean_of_groups: Test top-1, the mean of the three group means; a fraction.
    """

    method: str
    n_params: int
    mean_of_groups: float

    def to_json(self) -> dict[str, Any]:
        """As a table."""
        return asdict(self)


VTAB_PUBLISHED: Final = tuple(
    PublishedFigure(method, round(millions * 1e6), round(percent / 100, 4))
    for method, millions, percent in (
        ("full fine-tuning", 85.8, 69.0),
        ("linear probe", 0.04, 57.6),
        ("VPT-Deep", 0.56, 72.0),
        ("LoRA", 0.29, 74.6),
        ("AdaptFormer", 0.16, 74.7),
        ("NOAH", 0.43, 75.5),
        ("FacT", 0.07, 75.6),
        ("SSF", 0.21, 75.7),
        ("RepAdapter", 0.22, 76.1),
        ("GLoRA", 0.29, 77.3),
        ("GLoRA", 0.44, 77.6),
        ("GLoRA", 0.86, 78.0),
        ("PACE", 1.81, 79.0),
    )
)
"""In the order of their mean, but for the two baselines."""
