"""Tokens: which are legal where, and what each costs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import (
    SUPPORTS,
    GLoRASearchError,
    InvalidConfigError,
    LayerSpec,
    check_token,
    rank_of,
    token_params,
)

LAYER = LayerSpec("fc", in_features=7, out_features=11, bias=True)

LEGAL = {
    "A": {"lora_3", "vector", "constant", "none"},
    "B": {"lora_3", "vector", "constant", "none"},
    "C": {"lora_3", "vector", "none"},
    "D": {"vector", "constant", "none"},
    "E": {"vector", "constant", "none"},
}


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("token", ["lora_3", "vector", "constant", "none"])
def test_the_table_of_legal_tokens(support, token):
    """C is a column and has no scalar form, D and E have no low rank."""
    if token in LEGAL[support]:
        check_token(support, token)
    else:
        with pytest.raises(InvalidConfigError, match=f"{support} cannot be '{token}'"):
            check_token(support, token)


@settings(deadline=None, derandomize=True)
@given(rank=st.integers(1, 10**6), support=st.sampled_from("ABC"))
def test_every_positive_rank_is_a_token(rank, support):
    """A rank has one spelling, and it can be read back."""
    check_token(support, f"lora_{rank}")
    assert rank_of(f"lora_{rank}") == rank


@pytest.mark.parametrize(
    "token",
    [
        "lora_0",
        "lora_-1",
        "lora_04",
        "lora_",
        "lora_<r>",
        "LoRA_4",
        " lora_4",
        "lora_4\n",
        "",
        None,
        4,
    ],
)
def test_near_misses_are_refused(token):
    """A second spelling of a choice would be a second digest of the same subnet."""
    with pytest.raises(InvalidConfigError, match=r"A cannot be .* accepted: lora_<r>, vector"):
        check_token("A", token)


def test_an_unknown_support_names_the_known_ones():
    """The error is this project's own and a ValueError as well."""
    with pytest.raises(GLoRASearchError, match="'F'; accepted: A, B, C, D, E") as caught:
        check_token("F", "none")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("token", ["vector", "constant", "none"])
def test_what_is_not_low_rank_has_rank_zero(token):
    assert rank_of(token) == 0


@pytest.mark.parametrize(
    ("support", "token", "shapes"),
    [
        ("A", "lora_3", [(11, 3), (3, 7)]),
        ("B", "lora_1", [(11, 1), (1, 7)]),
        ("C", "lora_3", [(7, 3), (3, 1)]),
        ("A", "vector", [(11, 1)]),
        ("B", "vector", [(11, 1)]),
        ("C", "vector", [(7, 1)]),
        ("D", "vector", [(11,)]),
        ("E", "vector", [(11,)]),
        ("A", "constant", [()]),
        ("D", "constant", [()]),
        ("C", "none", []),
        ("E", "none", []),
    ],
)
def test_cost_is_the_elements_of_the_tensors_that_are_trained(support, token, shapes):
    """Told from the shapes of the tensors, on a layer whose two sides differ."""
    elements = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        elements += size
    assert token_params(support, token, LAYER) == elements


@pytest.mark.parametrize(
    ("bias", "can_add_bias", "only_none"),
    [(True, True, ""), (True, False, ""), (False, True, "D"), (False, False, "CDE")],
)
def test_what_a_layer_without_bias_allows(bias, can_add_bias, only_none):
    """D scales a bias that must be there; C and E bring one, where the architecture can hold it."""
    layer = LayerSpec("fc", 7, 11, bias=bias, can_add_bias=can_add_bias)
    for support in SUPPORTS:
        assert layer.allows(support, "vector") == (support not in only_none)
        assert layer.allows(support, "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 7, 11), "needs a name"),
        (("fc", 0, 11), "got 0 and 11"),
        (("fc", 7, -1), "got 7 and -1"),
    ],
)
def test_impossible_layers_are_refused(arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        LayerSpec(*arguments, bias=True)
