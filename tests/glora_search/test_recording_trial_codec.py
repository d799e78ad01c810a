"""The codec between outcomes and trial attributes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_cases import SPACE, outcome

from glora_search.recording.trial_codec import decode, encode, unrecorded
from glora_search.study.errors import StorageError

_PLACES = st.integers(0, 10**6)
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(
    st.characters(), max_size=20
)  # with lone surrogates and zeros: drivers say anything


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    generation=_PLACES,
    index=_PLACES,
    numbers=st.tuples(_NUMBERS, _NUMBERS, st.floats(0, 1e6)),
    texts=st.tuples(_TEXTS, _TEXTS, _TEXTS),
    parents=st.lists(_TEXTS, max_size=2),
    failed=st.booleans(),
)
def test_what_is_encoded_decodes_to_the_same(
    generation: int,
    index: int,
    numbers: tuple[float, float, float],
    texts: tuple[str, str, str],
    parents: list[str],
    failed: bool,
) -> None:
    """Through JSON, as it is stored: every digit of a float and every character of an error."""
    loss, top1, eval_s = numbers
    worker, error_type, error = texts
    subnet = outcome(0, 0).candidate.subnet
    given_outcome = replace(
        outcome(0, 0),
        candidate=replace(
            outcome(0, 0).candidate,
            generation=generation,
            index=index,
            parents=tuple(parents),
            price=eval_s,
        ),
        loss=None if failed else loss,
        top1=None if failed else top1,
        calibrated_loss=None if failed or index % 2 else loss / 2,
        eval_s=eval_s,
        worker=worker,
        error_type=error_type if failed else None,
        error=error if failed else None,
    )
    stored = json.dumps(encode(given_outcome), allow_nan=False)
    assert decode(json.loads(stored), subnet) == given_outcome


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("field", ["loss", "top1", "eval_s"])
def test_numbers_that_are_none_are_refused(field: str, number: float | None) -> None:
    with pytest.raises(StorageError, match=rf"generation 3, index 1: {field} must be a finite"):
        encode(replace(outcome(3, 1), **{field: number}))


@pytest.mark.parametrize("field", ["loss", "top1"])
def test_a_failure_has_no_numbers(field: str) -> None:
    with pytest.raises(StorageError, match="neither loss nor top1"):
        encode(replace(outcome(0, 6), **{field: 0.5}))


@pytest.mark.parametrize("failed", [True, False])
def test_every_missing_attribute_is_told(failed: bool) -> None:
    """`loss`, `top1`, `error_type` and `error` may be absent; nothing else."""
    given_outcome = outcome(0, 6 if failed else 0)
    subnet = given_outcome.candidate.subnet
    for key in ("generation", "index", "operator", "parents", "n_params", "eval_s", "worker"):
        attributes = dict(encode(given_outcome))
        del attributes[key]
        with pytest.raises(StorageError, match=f"lacks the user attribute '{key}'"):
            decode(attributes, subnet)


def test_what_older_versions_recorded_decodes() -> None:
    """They knew neither a price nor a calibrated loss, and what has none is stored as by them."""
    old = replace(outcome(0, 0), calibrated_loss=None)
    attributes = encode(old)
    assert not {"price", "calibrated_loss"} & set(attributes)
    assert decode(attributes, old.candidate.subnet) == old


def test_attributes_of_another_kind_are_told() -> None:
    attributes = {**encode(outcome(0, 0)), "n_params": "many"}
    with pytest.raises(StorageError, match="cannot be read"):
        decode(attributes, outcome(0, 0).candidate.subnet)


def test_parameters_must_have_the_recorded_digest() -> None:
    with pytest.raises(StorageError, match="digest"):
        decode(encode(outcome(0, 0)), SPACE.max_subnet())


def test_a_place_keeps_its_first_outcome() -> None:
    first, second = outcome(0, 0), replace(outcome(0, 0), worker="another:1")
    assert unrecorded([first, second, outcome(0, 1)], {}) == [first, outcome(0, 1)]
    assert unrecorded([second], {(0, 0): first.candidate.subnet.digest}) == []
    with pytest.raises(StorageError, match="index 0 is recorded as subnet"):
        unrecorded([outcome(0, 0, salt=1)], {(0, 0): first.candidate.subnet.digest})
