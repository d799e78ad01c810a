"""What a method is: the one protocol that all files of this package follow."""

from __future__ import annotations

import copy
import dataclasses
import sys
from typing import Any, ClassVar, Protocol, cast

from torch import nn

from supernet.adapted_network import AdaptedNetwork


class Method(Protocol):
    """A way to adapt a backbone, with its hyperparameters: a frozen dataclass.

    A new method is one file with such a class, and one entry in `supernet.methods.METHODS`; the
    contract tests run over it from then on.

    Attributes:
        name: As on the command line.
        merges: Whether what it leaves behind is a plain network of the backbone's architecture.
        starts_as_backbone: Whether the untrained network computes exactly what the backbone does.
        from_scratch: Whether it is meant for a backbone with random weights, not pretrained ones.
        size: The field that sets the number of trainable parameters; None where nothing does.
        smallest: The least value of that field.
        largest: Its largest value that makes sense; None where there is no bound.
    """

    name: ClassVar[str]
    merges: ClassVar[bool]
    starts_as_backbone: ClassVar[bool]
    from_scratch: ClassVar[bool]
    size: ClassVar[str | None]
    smallest: ClassVar[int]
    largest: ClassVar[int | None]

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """Add the method's parameters to a backbone, which is taken over.

        Args:
            backbone: A timm model with a classifier head.
            seed: Of what starts at random; the process's own generator is left as it was.

        Raises:
            BackboneError: The backbone lacks the modules that the method adapts.
        """
        ...


def sized(method: Method, backbone: nn.Module, n_params: int) -> Method:
    """The method with the size at which its count of trainable parameters is nearest `n_params`.

    Args:
        method: Its other fields are kept; returned as it is where it has no size.
        backbone: Left as it is.
        n_params: Trainable scalars without the head's.
    """
    if method.size is None:
        return method

    field = method.size

    def resized(size: int) -> Method:
        changed: Any = dataclasses.replace(cast(Any, method), **{field: size})
        return cast(Method, changed)

    def count(size: int) -> int:
        return resized(size).adapt(copy.deepcopy(backbone)).n_params

    most = method.largest or sys.maxsize
    below, above = method.smallest, min(2 * method.smallest, most)
    while count(above) < n_params and above < most:
        below, above = above, min(2 * above, most)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if count(middle) <= n_params else (below, middle)
    best = min((below, above), key=lambda size: (abs(count(size) - n_params), size))
    return resized(best)
