"""The demo in small: a launch, and a comparison that a second process helps with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from glora_search.bench.ahead import RunsAhead
from glora_search.bench.runs import Run
from glora_search.cli.commands import cli
from glora_search.operations import demo
from glora_search.study.examples import load_example
from glora_search.study.reading import apply_overrides, parse_study
from search_spaces import GLoRASearchError

pytestmark = pytest.mark.slow

SMALL = (
    *("supernet.epochs=3", "backbone.pretrain.epochs=1", "search.population=10"),
    *("search.generations=1", "search.parents=2", "search.mutations=4", "search.crossovers=2"),
    "cluster.workers=0",
)
METHODS = ["linear", "lora", "glora-search", "glora-random"]


def test_the_demo_compares_three_seeds_and_its_export_is_the_first(tmp_path: Path) -> None:
    words = ["demo", "--out", str(tmp_path), "--json"]
    for override in SMALL:
        words += ["--set", override]
    ended = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert ended.exit_code == 0
    document = json.loads(ended.stdout)
    compared = document["comparison"]
    assert [row["method"] for row in compared["rows"]] == METHODS
    assert all((row["n_runs"], row["error"]) == (3, None) for row in compared["rows"])
    assert all(row["difference"] for row in compared["rows"] if row["method"] != "lora")
    first = next(
        run for run in compared["runs"] if (run["method"], run["seed"]) == ("glora-search", 0)
    )
    assert first["val_loss"] == pytest.approx(document["export"]["val"]["loss"], abs=2e-6)
    assert first["test_top1"] == document["export"]["test"]["top1"]
    page = (tmp_path / "digits.html").read_text()
    assert "Means over 3 seeds" in page
    assert "paired by seed" in page

    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    assert demo._study(tmp_path, storage, SMALL).study.name == "digits-2", "digits is complete"


def test_a_helper_that_dies_is_told(tmp_path: Path) -> None:
    """And nobody waits for its results for ever."""
    table = tomllib.loads(load_example("digits"))
    table["study"]["directory"] = str(tmp_path)
    apply_overrides(table, SMALL)
    file = parse_study(table, origin="a test")
    run = Run(task="digits", method="linear", seed=0, lr=1e-3, epochs=1, role="final")
    with RunsAhead([run], file) as ahead:
        ahead._process.kill()
        with pytest.raises(GLoRASearchError, match="the process that compares methods has ended"):
            next(ahead.results(lambda: [run], lambda: None))
