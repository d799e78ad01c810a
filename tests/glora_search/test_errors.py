"""Errors as text."""

from __future__ import annotations

from glora_search.study.errors import one_line


def test_an_error_on_one_line() -> None:
    error = ValueError("first\n  second\tthird ")
    assert one_line(error) == "first second third"
    assert one_line(error, limit=100) == one_line(error, limit=100, end=True) == one_line(error)
    assert one_line(error, limit=5) == "first"
    assert one_line(error, limit=5, end=True) == "third"
    assert one_line(error, limit=0, end=True) == ""
