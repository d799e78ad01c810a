"""Texts of the report: numbers, tokens and their colours, the study file as TOML."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glora_search.reporting import formatting
from glora_search.reporting.tokens import colours, in_order, short_form, text_colour
from glora_search.study.toml_text import toml_text

_KEYS = st.text(st.characters(codec="utf-8"), max_size=6)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_toml_reads_back_as_what_it_was_made_of(table: dict[str, Any]) -> None:
    """So that the study in a report can be copied into a file and launched."""
    assert tomllib.loads(toml_text(table)) == _without_nulls(table)


def test_toml_looks_as_a_person_writes_it() -> None:
    table = {"study": {"name": "a"}, "backbone": {"args": {"depth": 6}, "checkpoint": None}}
    assert toml_text(table) == '[study]\nname = "a"\n\n[backbone.args]\ndepth = 6'


def test_standard_error_of_a_top1() -> None:
    assert formatting.standard_error(0.5, 200) == pytest.approx(math.sqrt(0.25 / 200))
    assert formatting.percent_with_error(0.5, 200) == "50.0 ± 3.5 %"
    assert formatting.percent_with_error(0.5, 10_000) == "50.00 ± 0.50 %"
    assert formatting.percent_with_error(0.5, None) == "50.0 %"
    assert formatting.percent_with_error(None, 200) == formatting.MISSING


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0.25, "0.2 s"), (45.4, "45 s"), (600, "10 min"), (4000, "67 min"), (36_000, "10 h 00 min")],
)
def test_durations(duration_s: float, text: str) -> None:
    assert formatting.seconds(duration_s) == text


def test_tokens_stand_in_order_of_what_they_can_do() -> None:
    tokens = ["lora_16", "vector", "lora_2", "none", "constant", "lora_2"]
    assert in_order(tokens) == ("none", "constant", "vector", "lora_2", "lora_16")
    assert [short_form(token) for token in in_order(tokens)][1:] == ["const", "vec", "r2", "r16"]


def test_every_token_has_its_own_colour_and_ranks_darken() -> None:
    tokens = ["none", "constant", "vector", *(f"lora_{r}" for r in range(1, 9))]
    palette = colours(tokens)
    assert list(palette) == tokens
    assert len(set(palette.values())) == len(tokens)
    lightness = [sum(int(palette[t][k : k + 2], 16) for k in (1, 3, 5)) for t in tokens[3:]]
    assert lightness == sorted(lightness, reverse=True)


def test_text_is_dark_on_light_colours_and_light_on_dark_ones() -> None:
    assert text_colour("#EEF0F2") == text_colour("#FFFFFF") == text_colour("#56B4E9") == "#000000"
    assert text_colour("#803000") == text_colour("#000000") == "#FFFFFF"
