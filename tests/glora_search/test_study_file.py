"""The study file: every mistake at once, each with its key, the value, and what is accepted."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tiny_study import study_table, write_study

from glora_search.proposing import SearchSettings
from glora_search.stages.prepare import with_epochs
from glora_search.study.errors import StudyFileError
from glora_search.study.examples import example_names, load_example
from glora_search.study.network_sections import SupernetSection
from glora_search.study.presets import PRESETS, with_preset
from glora_search.study.reading import load_study_file, parse_study, stored_study
from glora_search.study.search_section import SearchSection
from glora_search.study.study_file import StudyFile
from search_spaces import LayerSpec, SearchSpace, load_preset
from supernet import Design, Recipe


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
        ("supernet.epochs", '"many"', 'a number from 1 on, or "auto"'),
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
        ({"search": {"objectives": ["params", "loss"]}}, "alone or followed by params"),
        ({"search": {"objectives": ["loss", "speed"]}}, "unknown objective 'speed'"),
        ({"search": {"objectives": ["loss", "params"], "fitness": "top1"}}, "must be the fitness"),
        ({"search": {"objectives": ["loss", "params"], "sampler": "tpe"}}, 'than "tpe"'),
        ({"search": {"objectives": ["loss", "params"], "size_price": 0.1}}, "needs one objective"),
        ({"search": {"objectives": ["loss", "params"], "diversity": 2}}, "needs one objective"),
        ({"supernet": {"device": "gpu"}}, "auto, cpu, cuda"),
        ({"cluster": {"workers": True}}, "cluster.workers"),
        ({"supernet": {"lr": "1e-3"}}, "supernet.lr"),
        ({"export": {"soup": 1}}, "a soup needs 2 candidates or more"),
        ({"export": {"soup": 25}}, "soup must be at most 24"),
        ({"export": {"soup": 2, "average": 3}}, "export.soup = 2: it excludes export.average = 3"),
        (
            {"export": {"finetune_epochs": 5, "average": 3}},
            "export.finetune_epochs = 5: it excludes export.average = 3",
        ),
        (
            {"export": {"finetune_epochs": 5, "soup": 2}},
            "export.finetune_epochs = 5: it excludes export.soup = 2",
        ),
        ({"export": {"finetune_lr": 0.0}}, "export.finetune_lr"),
        ({"export": {"finetune_runs": 2}}, "several runs are averaged"),
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
    published = with_preset({"study": {"preset": "published"}})["supernet"]
    section = SupernetSection.model_validate(published)
    assert Recipe(**section.recipe_fields()) == Recipe()
    assert (section.paths, section.paths_per_step) == (Design().paths, Design().paths_per_step)
    settings, section = SearchSettings(), SearchSection()
    for name in (
        *("sampler", "operators", "population", "generations", "parents", "mutations"),
        *("crossovers", "mutation_probability", "surrogate", "proposals", "diversity"),
        *("size_price", "warm_start"),
    ):
        assert getattr(section, name) == getattr(settings, name), name
    assert section.fitness == str(settings.objectives)


@pytest.mark.parametrize(
    ("search", "optimised", "start"),
    [
        ({}, "loss", "none"),
        ({"fitness": "top1"}, "top1", "none"),
        ({"objectives": ["top1"]}, "top1", "none"),
        ({"objectives": ["top1", "params"]}, "top1,params", "spread"),
        ({"objectives": ["loss", "params"], "warm_start": "none"}, "loss,params", "none"),
    ],
)
def test_fitness_and_start_follow_from_the_objectives(
    tmp_path: Path, search: dict, optimised: str, start: str
) -> None:
    """Both keys say the same in the resolved study, which the database keeps and gives back."""
    file = parse_study(study_table(tmp_path, search=search), origin="x")
    assert str(file.search.optimised) == optimised
    assert file.search.fitness == optimised.partition(",")[0]
    assert file.search.warm_start == start
    assert stored_study(json.loads(file.to_json())) == file
    older = json.loads(file.to_json())
    del older["search"]["objectives"]
    assert str(stored_study(older).search.optimised) == file.search.fitness


def test_a_preset_fills_in_what_the_study_does_not_say(tmp_path: Path) -> None:
    """Its own keys win, and what is stored is resolved."""
    table = study_table(tmp_path, search={"fitness": "loss"})
    del table["supernet"]["epochs"]
    table["study"]["preset"] = "published"
    file = parse_study(table, origin="study.toml")
    assert (file.supernet.storage, file.supernet.paths) == ("entangled", "uniform")
    assert (file.supernet.paths_per_step, file.supernet.epochs) == (1, 500)
    assert (file.search.operators, file.search.fitness) == ("published", "loss")
    assert stored_study(json.loads(file.to_json())) == file
    table["study"]["preset"] = "publisched"
    assert "'published'" in mistakes(table)[1]


def test_every_key_of_a_preset_exists() -> None:
    for sections in PRESETS.values():
        for section, keys in sections.items():
            known = StudyFile.model_fields[section].annotation
            assert set(keys) <= set(known.model_fields), section


def test_a_study_that_was_stored_before_there_were_paths_means_what_it_meant(
    tmp_path: Path,
) -> None:
    """Its supernet is found again, and nothing is trained anew."""
    document = json.loads(parse_study(study_table(tmp_path), origin="study.toml").to_json())
    assert (document["supernet"]["paths"], document["supernet"]["paths_per_step"]) == ("fair", 1)
    assert stored_study(document).supernet.paths == "fair"
    for key in ("paths", "paths_per_step", "sandwich", "ema"):
        del document["supernet"][key]
    older = stored_study(document).supernet
    assert (older.paths, older.paths_per_step) == ("uniform", 1)


@pytest.mark.parametrize(
    ("n_train", "changes", "epochs"),
    [
        (800, {}, 174),  # 13 steps of 4 paths an epoch; 1,800 paths for each of 5 choices
        (800, {"paths_per_step": 1}, 693),
        (800, {"workers": 2}, 161),  # 7 steps of 8 paths
        (100, {"batch_size": 32}, 563),  # 4 steps of 4 paths
        (100, {"epochs": 7}, 7),
    ],
)
def test_epochs_follow_from_the_space_and_the_data(
    n_train: int, changes: dict, epochs: int, tmp_path: Path
) -> None:
    """Every choice of the gene with the most choices gets the same number of paths."""
    table = study_table(tmp_path)
    table["supernet"] = {"epochs": "auto", **changes}
    file = parse_study(table, origin="study.toml")
    choices = load_preset("digits").choices
    space = SearchSpace([LayerSpec("blocks.0.attn.qkv", 8, 24, True)], choices)
    assert with_epochs(file, space, n_train).supernet.epochs == epochs
