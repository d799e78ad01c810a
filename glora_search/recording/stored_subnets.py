"""Subnets whose layers stay in the database until somebody needs them.

A trial of 240 genes has 240 parameter rows, and reading these takes most of the time of reading a
study. To show a study, figures and digests of all subnets are needed, but the layers of few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

from search_spaces import LayerConfig, SubnetConfig

Read = Callable[[Mapping[int, str]], Mapping[int, SubnetConfig]]
"""The key of each trial with the recorded digest of its subnet, to the subnets."""


class StoredSubnet(SubnetConfig):
    """A subnet that is known by its recorded digest. Safe to use from several threads.

    Args:
        digest: As it was recorded.
        key: The database's key of the trial.
        read: Reads the layers when they are first needed, and compares them with the digest. It
            raises StorageError if they are damaged, or if the database fails or is closed.
    """

    def __init__(self, digest: str, *, key: int, read: Read) -> None:
        vars(self).update(digest=digest, _key=key, _read=read)  # the class is frozen

    @cached_property
    def layers(self) -> Mapping[str, LayerConfig]:
        """Layer name to LayerConfig."""
        read: Read = vars(self)["_read"]
        key: int = vars(self)["_key"]
        return read({key: self.digest})[key].layers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubnetConfig) and self.digest == other.digest

    __hash__ = SubnetConfig.__hash__

    def __repr__(self) -> str:
        return f"StoredSubnet({self.digest!r})"


def read_layers(subnets: Iterable[SubnetConfig]) -> None:
    """Read the layers of many subnets at once, where that was not done before."""
    wanted: dict[Read, list[StoredSubnet]] = {}
    for subnet in subnets:
        if isinstance(subnet, StoredSubnet) and "layers" not in vars(subnet):
            wanted.setdefault(vars(subnet)["_read"], []).append(subnet)
    for read, stored in wanted.items():
        found = read({vars(subnet)["_key"]: subnet.digest for subnet in stored})
        for subnet in stored:
            vars(subnet)["layers"] = found[vars(subnet)["_key"]].layers
