"""Presets: found by walking, each a usable space, the published ones as published."""

import random
from importlib import resources

import pytest
from example_spaces import VIT_B_LAYERS, vit_b_space

from search_spaces import InvalidConfigError, SearchSpace, load_preset, preset_names


def test_there_are_presets():
    """One for every TOML file of the package, or the tests below would run over nothing."""
    files = [f.name for f in resources.files("search_spaces.presets").iterdir()]
    assert {f"{name}.toml" for name in preset_names()} == {f for f in files if f.endswith("toml")}
    assert len(preset_names()) > 0
    assert {"glora_r2", "glora_r4", "glora_r8", "mixed", "digits"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_a_space(name):
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description.endswith(".")
    space = SearchSpace(VIT_B_LAYERS, preset.choices)
    assert space.size > 1
    space.validate(space.sample(random.Random(0)))


@pytest.mark.parametrize(("rank", "millions"), [(2, 0.31), (4, 0.50), (8, 0.88)])
def test_published_spaces_have_the_published_average_size(rank, millions):
    """Parameters of a uniform random subnet of ViT-B/16, exactly: genes are independent."""
    space = vit_b_space(f"glora_r{rank}")
    mean = sum(sum(options) / len(options) for options in space.costs)
    assert mean / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_mixed_preset_offers_every_rank_side_by_side():
    for support in "AB":
        tokens = load_preset("mixed").choices[support]
        assert [t for t in tokens if "_" in t] == ["lora_1", "lora_2", "lora_4", "lora_8"]


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(InvalidConfigError, match=r"no preset 'glora_r5'; .*did you mean 'glora_r"):
        load_preset("glora_r5")
