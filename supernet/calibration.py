"""The loss of a network after its temperature is fitted, which removes over- and underconfidence.

Temperature scaling (Guo et al., 2017, arXiv 1706.04599) divides all logits by one number T. It does
not change which class is predicted. The minimum of the loss over T compares networks without regard
to their confidence. With b = 1 / T the mean cross-entropy is convex in b. Its first two derivatives
are means of E_p[z] - z_label and Var_p[z], where p is the softmax of b z. So Newton's method finds
the minimum.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

COLDEST: Final = 1 / 20
HOTTEST: Final = 20.0
"""Limits on T. Without them a network that is always right would have T = 0 and no loss."""

_STEPS: Final = 16


def calibrated_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The least mean cross-entropy of `logits / T` over T from 1/20 to 20, float64 ().

    The number of steps is fixed and nothing is read back, so on a GPU nothing waits, and the result
    is the same wherever it is computed.

    Args:
        logits: (n, classes). Minus infinity is allowed for classes that no label has.
        labels: (n), int64.
    """
    losses, _ = _near_the_minimum(logits, labels)
    return losses.amin()


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T at which `calibrated_loss` has its minimum. Arguments as there."""
    losses, inverse = _near_the_minimum(logits, labels)
    return 1 / float(inverse[losses.argmin()])


def _near_the_minimum(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Losses at three values of b = 1 / T, float64 (3), of which the least is the minimum; and
    these values.
    """
    z = logits.double()
    known = z.masked_fill(z == -torch.inf, 0.0)  # their probability is 0, and 0 * inf is NaN
    right = known.gather(1, labels[:, None]).squeeze(1)  # (n)
    low = z.new_tensor(1 / HOTTEST)
    high = z.new_tensor(1 / COLDEST)
    b = z.new_tensor(1.0)
    for _ in range(_STEPS):
        p = torch.softmax(b * z, 1)  # (n, classes)
        mean = (p * known).sum(1)  # (n)
        slope = (mean - right).mean()
        curvature = ((p * known**2).sum(1) - mean**2).mean()
        # The least lies where the slope changes its sign. A step out of these bounds is replaced
        # by their geometric mean.
        low, high = torch.where(slope < 0, b, low), torch.where(slope < 0, high, b)
        newton = b - slope / curvature
        b = torch.where((newton > low) & (newton < high), newton, (low * high).sqrt())
    tried = torch.stack((b, low, high))
    return torch.stack([F.cross_entropy(each * z, labels) for each in tried]), tried
