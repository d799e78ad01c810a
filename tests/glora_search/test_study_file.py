"""The study file: every mistake at once, each with its key, the value, and what is accepted."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tiny_study import study_table, write_study

from glora_search.proposing import SearchSettings
from glora_search.study.errors import StudyFileError
from glora_search.study.examples import example_names, load_example
from glora_search.study.network_sections import SupernetSection
from glora_search.study.reading import load_study_file, parse_study, stored_study
from glora_search.study.search_section import SearchSection
from supernet import Recipe


def mistakes(table: dict) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        parse_study(table, origin="study.toml")
    return str(caught.value).splitlines()


def test_five_mistakes_are_all_named(tmp_path: Path) -> None:
    """A wrong key, a wrong type, a value out of range, an unknown choice, a missing key."""
    table = study_table(tmp_path, supernet={"epochs": "many", "lr": -1.0})
    table["search"] = {"generatoins": 3, "fitness": "los"}
    del table["study"]["name"]
    head, *lines = mistakes(table)
    assert head == "study.toml has 5 mistakes:"
    assert len(lines) == 5
    for key, *told in (
        ("study.name", "required"),
        ("supernet.epochs", '"many"', "integer"),
        ("supernet.lr", "-1.0", "greater than 0"),
        ("search.fitness", '"los"', "'loss', 'top1' or 'calibrated-loss'"),
        ("search.generatoins", "unknown key", "did you mean 'generations'?"),
    ):
        line = next(line for line in lines if line.strip().startswith(key))
        assert all(word in line for word in told), line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"serch": {}}, "did you mean 'search'?"),
        ({"data": {"rot": "x"}}, "data.rot"),
        ({"data": {"source": "vatb"}}, "'digits', 'drawn', 'vtab', 'folder', 'timm', 'few-shot'"),
        ({"space": {"preset": "glora_r5"}}, "glora_r4"),
        ({"space": {"choices": {"A": ["lora_0"]}}}, "space.choices"),
        ({"study": {"name": "../x"}}, "study.name"),
        ({"study": {"name": "a/b"}}, "study.name"),
        ({"backbone": {"pretrained": True}}, "pretrained and checkpoint"),
        ({"search": {"parents": 9}}, "at most the population of 8"),
        ({"search": {"mutations": 6}}, "must not exceed the population of 8"),
        ({"search": {"min_params": 5, "max_params": 4}}, "at least min_params of 5"),
        ({"search": {"holdout": 0.2, "finalists": 0}}, "finalists must be above 0"),
        ({"search": {"holdout": 1.0}}, "less than 1"),
        ({"search": {"surrogate": "ridge", "sampler": "tpe"}}, 'needs the sampler "evolution"'),
        ({"search": {"surrogate": "trees", "mode": "steady-state"}}, 'mode "generational"'),
        ({"search": {"diversity": 3, "sampler": "random"}}, 'needs the sampler "evolution"'),
        ({"supernet": {"device": "gpu"}}, "auto, cpu, cuda"),
        ({"cluster": {"workers": True}}, "cluster.workers"),
        ({"supernet": {"lr": "1e-3"}}, "supernet.lr"),
    ],
)
def test_each_wrong_value_is_one_line(tmp_path: Path, changes: dict, told: str) -> None:
    table = study_table(tmp_path, **changes)
    head, *lines = mistakes(table)
    assert told in "\n".join(lines)
    assert "1 mistake:" in head


def test_the_weights_have_one_origin(tmp_path: Path) -> None:
    table = study_table(tmp_path)
    del table["backbone"]["checkpoint"]
    assert "got none" in mistakes(table)[1]


def test_examples_are_valid_and_there_are_some() -> None:
    """Found by walking, so that none is forgotten."""
    names = example_names()
    assert len(names) >= 3
    for name in names:
        parse_study(tomllib.loads(load_example(name)), origin=name)


def test_commented_keys_of_the_vtab_example_are_valid() -> None:
    """What a person uncomments must work: each such line is tried with its own value."""
    lines = load_example("vtab-vit-b16").splitlines()
    section, tried = "", 0
    for line in lines:
        if line.startswith("[") and not line.startswith("[["):
            section = line.strip("[]")
        key, equals, value = line.removeprefix("# ").partition(" = ")
        if not line.startswith("# ") or not equals or " " in key or key == "pretrained":
            continue
        table = tomllib.loads(load_example("vtab-vit-b16"))
        table.setdefault(section, {})[key] = tomllib.loads(f"x = {value}")["x"]
        parse_study(table, origin=f"{section}.{key}")
        tried += 1
    assert tried > 25


def test_overrides_are_toml_values_or_bare_words(tmp_path: Path) -> None:
    file = load_study_file(
        write_study(tmp_path),
        ["search.generations=5", "search.fitness=top1", "supernet.lr=1e-3", "study.name='n'"],
    )
    assert (file.search.generations, file.search.fitness) == (5, "top1")
    assert (file.supernet.lr, file.study.name) == (1e-3, "n")


@pytest.mark.parametrize("override", ["search.generations", "generations=5", "search..x=1", "=3"])
def test_an_override_that_is_not_understood(tmp_path: Path, override: str) -> None:
    with pytest.raises(StudyFileError, match="--set"):
        load_study_file(write_study(tmp_path), [override])


def test_what_is_no_file_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="cannot read"):
        load_study_file(tmp_path / "absent.toml")
    (tmp_path / "x.toml").write_text("[study\n")
    with pytest.raises(StudyFileError, match=r"not TOML.*line 1"):
        load_study_file(tmp_path / "x.toml")


def test_the_resolved_study_survives_the_database(tmp_path: Path) -> None:
    """Stored as JSON with absolute paths: resume reads the same study from any folder."""
    file = load_study_file(write_study(tmp_path))
    assert stored_study(json.loads(file.to_json())) == file
    assert file.backbone.checkpoint is not None
    assert file.backbone.checkpoint.is_absolute()


def test_defaults_are_those_of_the_records() -> None:
    """The numbers of the published method stand in two places; they must not drift apart."""
    assert Recipe(**SupernetSection().recipe_fields()) == Recipe()
    settings, section = SearchSettings(), SearchSection()
    for name in (
        *("sampler", "operators", "population", "generations", "parents", "mutations"),
        *("crossovers", "mutation_probability", "surrogate", "proposals", "diversity"),
        *("size_price", "warm_start"),
    ):
        assert getattr(section, name) == getattr(settings, name), name
    assert section.fitness == str(settings.objectives)
