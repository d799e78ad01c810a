"""A supernet and splits as they travel to workers: plain values and arrays, sent once.

Ray keeps numpy arrays in its object store and maps them into every worker of a node without a copy;
tensors it would pickle. So weights and images travel as arrays.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from search_spaces import SearchSpace
from supernet import Architecture, Split, Storage, Supernet, TensorSplit

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class PackedSupernet:
    """A supernet with its weights.

    Args:
        architecture: Of the backbone.
        space: JSON of the search space.
        storage: How the supernet stores choices.
        weights: Every tensor of the supernet's backbone: frozen, support tensors, head.
    """

    architecture: Architecture
    space: str
    storage: Storage
    weights: Arrays

    @classmethod
    def of(cls, supernet: Supernet, architecture: Architecture) -> PackedSupernet:
        """Pack a supernet that is in this process."""
        return cls(
            architecture=architecture,
            space=supernet.space.to_json(),
            storage=supernet.storage,
            weights={k: v.cpu().numpy() for k, v in supernet.backbone.state_dict().items()},
        )

    def unpack(self, device: torch.device | str, *, drop_path: float = 0.0) -> Supernet:
        """Build the supernet again.

        Args:
            device: Where to.
            drop_path: Of the backbone, for training.
        """
        supernet = Supernet(
            self.architecture.build(drop_path=drop_path),
            SearchSpace.from_json(self.space),
            storage=self.storage,
        )
        weights = {name: torch.tensor(array) for name, array in self.weights.items()}
        supernet.backbone.load_state_dict(weights)
        return supernet.to(device)


def pack_split(split: Split) -> Split | dict[str, Any]:
    """A split as it travels: of a decoded one its fields, with arrays in the place of tensors."""
    if not isinstance(split, TensorSplit):
        return split
    packed = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
    packed |= {"images": split.images.cpu().numpy(), "labels": split.labels.cpu().numpy()}
    return packed | {"device": torch.device("cpu")}


def unpack_split(packed: Split | dict[str, Any]) -> Split:
    """The split that `pack_split` packed, on the CPU, over the arrays themselves."""
    return TensorSplit(**packed) if isinstance(packed, dict) else packed
