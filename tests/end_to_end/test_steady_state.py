"""A whole study in steady-state mode, chosen in its file: to an export, with what it gives up."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_study import N_SUBNETS, write_study

from glora_search.cli.commands import cli
from glora_search.recording import Database


@pytest.mark.slow
def test_a_steady_study_is_searched_exported_and_says_what_it_is(tmp_path: Path) -> None:
    """`status` and the report tell the mode; the study records that its seed is not enough."""
    file = write_study(tmp_path, search={"mode": "steady-state"})
    storage = f"sqlite:///{tmp_path / 'x.db'}"

    def call(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--storage", storage], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    call("launch", str(file))
    assert "steady-state" in call("status", "tiny")
    call("report", "tiny", "--out", str(tmp_path / "report.html"))
    assert "steady-state" in (tmp_path / "report.html").read_text()
    with Database(storage) as database:
        record = database.open_study("tiny")
        assert record.attributes["reproducible"] is False
        assert len(record.history()) == N_SUBNETS
    assert (tmp_path / "runs" / "tiny" / "export" / "model.safetensors").exists()
