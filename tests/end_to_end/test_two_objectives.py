"""A whole study of two objectives: from its file to a front, and exports of points on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_study import N_SUBNETS, write_study

from glora_search.cli.commands import cli


@pytest.mark.slow
def test_a_front_is_searched_shown_and_exported(tmp_path: Path) -> None:
    """The launch exports the best loss; the knee and a small subnet come out of the same study."""
    file = write_study(tmp_path, search={"objectives": ["loss", "params"]})
    storage = f"sqlite:///{tmp_path / 'x.db'}"

    def call(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--storage", storage], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    launched = json.loads(call("launch", str(file), "--json"))
    assert launched["evaluated"] == N_SUBNETS
    status = json.loads(call("status", "tiny", "--json"))
    front = status["front"]
    sizes = [trial["n_params"] for trial in front["trials"]]
    losses = [trial["loss"] for trial in front["trials"]]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)
    assert launched["export"]["trial"] == front["trials"][-1]["trial"] == status["best"]["trial"]
    volumes = list(front["hypervolume_by_generation"].values())
    assert volumes == sorted(volumes)
    assert volumes[-1] == front["hypervolume"] > volumes[0] > 0
    assert "knee" in call("status", "tiny")

    second = front["trials"][1]
    for name, options, trial in (
        ("knee", ["--pick", "knee"], front["knee"]),
        ("small", ["--max-params", str(second["n_params"])], second["trial"]),
    ):
        exported = json.loads(
            call("export", "tiny", *options, "--out", str(tmp_path / name), "--json")
        )
        assert exported["trial"] == trial
        assert (tmp_path / name / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--trial", "1", "--pick", "knee"], "--trial and --pick exclude each other"),
        (["--pick", "loss", "--average", "3"], "--pick and --average exclude each other"),
        (["--max-params", "9", "--soup", "3"], "--max-params and --soup exclude each other"),
    ],
)
def test_options_that_exclude_each_other(options: list[str], told: str) -> None:
    """Before anything is loaded."""
    result = CliRunner().invoke(cli, ["export", "tiny", "--out", "x", *options])
    assert result.exit_code != 0
    assert told in f"{result.output}{result.exception}"
