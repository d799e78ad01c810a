"""Database URLs: what is accepted, and that no message repeats a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glora_search.recording.storage_url import parse_url
from glora_search.study.errors import StorageError


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_spoken_with_psycopg_3(scheme: str) -> None:
    parsed = parse_url(f"{scheme}://ada:s3cr3t@db.example:5433/studies?sslmode=require")
    assert parsed.url.drivername == "postgresql+psycopg"
    assert parsed.url.password == "s3cr3t"
    assert parsed.url.query == {"sslmode": "require"}
    assert parsed.shown == "postgresql://ada:***@db.example:5433/studies"
    assert "s3cr3t" not in repr(parsed)
    assert parsed.sqlite_file is None


def test_sqlite_files_are_relative_or_absolute() -> None:
    assert parse_url("sqlite:///studies.db").sqlite_file == Path("studies.db")
    assert parse_url("sqlite:////var/studies.db").sqlite_file == Path("/var/studies.db")
    assert parse_url("sqlite+pysqlite:///a/b.db").shown == "sqlite:///a/b.db"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("studies.db", "got 'studies.db'; accepted: sqlite:///FILE or postgresql://"),
        ("", "not a database URL"),
        ("mysql://host/db", "'mysql' are not supported"),
        ("postgresql+psycopg2://host/db", "'postgresql.psycopg2' are not supported"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///file:studies.db?uri=true", "must be a file"),
        ("sqlite://studies.db", "three slashes"),
        ("sqlite:///studies.db?mode=ro", "takes no options; got mode"),
    ],
)
def test_urls_that_are_not_accepted_say_what_is(text: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "ada:hunter2@db.example/studies",
        "postgresql://ada:pa@hunter2@db.example/studies",
        "postgresql://ada:pa@hunter2:5@db.example:5432/studies",
        "postgresql://ada@db.example:hunter2/studies",
        "postgresql://ada:pa@db.example:hunter2/studies",
        "mysql://ada:hunter2@db.example/studies",
    ],
)
def test_a_malformed_url_is_not_repeated(text: str) -> None:
    """A password that should have been encoded spills into other parts of the URL."""
    with pytest.raises(StorageError) as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_secrets_are_scrubbed_from_what_drivers_say() -> None:
    parsed = parse_url("postgresql://ada:hunter2@db/studies?sslpassword=opensesame&options=-cx%3D1")
    assert parsed.scrub('bad "hunter2"\n\tor opensesame,  -cx=1') == 'bad "***" or ***, -cx=1'
    assert "opensesame" not in parsed.shown


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    before=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12),
    after=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12),
)
def test_no_password_is_shown_however_it_is_written(before: str, after: str) -> None:
    """Percent-encoded or not: either it is understood as the password, or the URL is refused."""
    secret = f"{before}Zq7Zq7{after}"
    try:
        shown = parse_url(f"postgresql://ada:{secret}@db.example:5432/studies").shown
    except StorageError as error:
        shown = str(error)
    assert "Zq7Zq7" not in shown
