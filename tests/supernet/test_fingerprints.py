"""Fingerprints: equal for equal weights, whatever holds them, and for no others."""

import hashlib

import pytest
import torch

from supernet.fingerprints import fingerprint

TENSORS = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.5)}


def test_equal_tensors_have_equal_fingerprints() -> None:
    """In any order, view or parameter; a hex SHA-256."""
    expected = fingerprint(TENSORS)
    assert len(expected) == hashlib.sha256().digest_size * 2
    turned = {"b": TENSORS["b"].clone(), "w": TENSORS["w"].T.contiguous().T}
    assert fingerprint(turned) == expected
    assert fingerprint({n: torch.nn.Parameter(t) for n, t in TENSORS.items()}) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"w": TENSORS["w"]},
        {**TENSORS, "c": torch.zeros(0)},
        {"v": TENSORS["w"], "b": TENSORS["b"]},
        {**TENSORS, "w": TENSORS["w"].reshape(3, 2)},
        {**TENSORS, "w": TENSORS["w"].view(torch.int32)},
        {**TENSORS, "b": torch.nextafter(TENSORS["b"], torch.tensor(2.0))},
    ],
    ids=["fewer", "more", "name", "shape", "type", "last bit"],
)
def test_anything_that_differs_shows(other: dict[str, torch.Tensor]) -> None:
    assert fingerprint(other) != fingerprint(TENSORS)


def test_every_type_of_weights_has_one() -> None:
    """Numpy knows no bfloat16."""
    types = (torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64)
    assert len({fingerprint({"w": torch.ones(3, dtype=t)}) for t in types}) == len(types)
