"""Layer and subnet configurations: their three codecs and their identity."""

import hashlib
import json
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_spaces import SUPPORTS, InvalidConfigError, LayerConfig, LayerSpec, SubnetConfig
from search_spaces.configs import layer_config

_RANKS = st.integers(1, 64).map("lora_{}".format)
_FORMS = {
    "A": _RANKS | st.sampled_from(["vector", "constant", "none"]),
    "B": _RANKS | st.sampled_from(["vector", "constant", "none"]),
    "C": _RANKS | st.sampled_from(["vector", "none"]),
    "D": st.sampled_from(["vector", "constant", "none"]),
    "E": st.sampled_from(["vector", "constant", "none"]),
}
LAYER_CONFIGS = st.builds(LayerConfig, **_FORMS)
# Any text is a module name as far as the codecs are concerned: quotes, dots, letters of any script.
SUBNETS = st.dictionaries(st.text(min_size=1), LAYER_CONFIGS, min_size=1, max_size=6).map(
    SubnetConfig
)
EXAMPLE = SubnetConfig(
    {
        "blocks.0.attn.qkv": LayerConfig(
            A="lora_4", B="vector", C="none", D="constant", E="vector"
        ),
        "blocks.0.mlp.fc1": LayerConfig(B="constant"),
    }
)


@settings(deadline=None, derandomize=True)
@given(SUBNETS)
def test_every_codec_round_trips(subnet):
    """Parameters, JSON and pickle lose nothing."""
    for again in (
        SubnetConfig.from_params(subnet.to_params()),
        SubnetConfig.from_json(subnet.to_json()),
        pickle.loads(pickle.dumps(subnet)),
    ):
        assert again == subnet
        assert again.digest == subnet.digest
        assert hash(again) == hash(subnet)


@settings(deadline=None, derandomize=True)
@given(SUBNETS, st.randoms(use_true_random=False))
def test_identity_does_not_depend_on_the_order_of_layers(subnet, rng):
    """A database returns parameters in its own order."""
    names = list(subnet.layers)
    rng.shuffle(names)
    shuffled = SubnetConfig({name: subnet.layers[name] for name in names})
    assert shuffled == subnet
    assert shuffled.digest == subnet.digest
    assert shuffled.to_json() == subnet.to_json()


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(SUBNETS, SUBNETS)
def test_unlike_subnets_have_unlike_digests(one, other):
    assume(one.layers != other.layers)
    assert one != other
    assert one.digest != other.digest


def test_one_changed_token_changes_the_digest():
    params = EXAMPLE.to_params()
    digests = {EXAMPLE.digest}
    for gene in params:
        token = "none" if params[gene] != "none" else "vector"
        digests.add(SubnetConfig.from_params({**params, gene: token}).digest)
    assert len(digests) == 1 + len(params)


def test_the_digest_is_the_one_that_databases_hold():
    """Digests are stored; a change of the canonical form would orphan every study there is."""
    subnet = SubnetConfig({"b": LayerConfig(A="lora_2"), "a": LayerConfig(E="vector")})
    assert subnet.to_json() == (
        '{"layers":{"a":{"A":"none","B":"none","C":"none","D":"none","E":"vector"},'
        '"b":{"A":"lora_2","B":"none","C":"none","D":"none","E":"none"}}}'
    )
    assert subnet.digest == "50bb4a7de20a1e322e011f24532cb719bc063578525afa9b4b4ed4ddc48176f9"


@settings(deadline=None, derandomize=True)
@given(SUBNETS)
def test_json_put_together_from_parts_is_what_json_itself_would_write(subnet):
    """The texts of layers and names are cached, for speed; the digest must not notice."""
    layers = {
        name: {support: getattr(subnet.layers[name], support) for support in SUPPORTS}
        for name in sorted(subnet.layers)
    }
    plain = json.dumps({"layers": layers}, separators=(",", ":"))
    assert subnet.to_json() == plain
    assert subnet.digest == hashlib.sha256(plain.encode()).hexdigest()


def test_a_layer_configuration_is_made_once_and_pickles_as_its_tokens():
    """Workers are sent thousands; what is cached in one does not travel with it."""
    config = layer_config("lora_2", "vector", "none", "constant", "none")
    assert config == LayerConfig(A="lora_2", B="vector", D="constant")
    assert config.tokens == ("lora_2", "vector", "none", "constant", "none")
    before = pickle.dumps(config)
    assert config.canonical_json
    assert pickle.dumps(config) == before
    assert pickle.loads(before) is layer_config(*config.tokens) is config
    with pytest.raises(InvalidConfigError, match="D cannot be 'lora_4'"):
        layer_config("none", "none", "none", "lora_4", "none")


def test_parameters_are_named_after_layer_and_support():
    params = EXAMPLE.to_params()
    assert list(params)[:5] == [f"blocks.0.attn.qkv.{support}" for support in SUPPORTS]
    assert params["blocks.0.mlp.fc1.B"] == "constant"
    assert len(params) == 10


def test_a_subnet_cannot_change():
    """Digests are cached and subnets shared: the mapping is a copy, and read-only."""
    layers = {"fc": LayerConfig()}
    subnet = SubnetConfig(layers)
    layers["other"] = LayerConfig()
    assert list(subnet.layers) == ["fc"]
    with pytest.raises(TypeError):
        subnet.layers["fc"] = LayerConfig(A="vector")
    with pytest.raises(FrozenInstanceError):
        subnet.layers = {}
    with pytest.raises(FrozenInstanceError):
        subnet.layers["fc"].A = "vector"


def test_a_subnet_is_unlike_other_things():
    assert EXAMPLE.to_params() != EXAMPLE
    assert EXAMPLE in {EXAMPLE}


def test_count_of_one_layer_is_the_sum_of_its_tensors():
    layer = LayerSpec("fc", in_features=3, out_features=5, bias=True)
    config = LayerConfig(A="lora_2", B="vector", C="vector", D="constant", E="none")
    assert config.n_params(layer) == 2 * (3 + 5) + 5 + 3 + 1 + 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "at least one layer"),
        ({"fc.F": "none"}, "'fc.F' is not a gene"),
        ({"A": "none"}, "'A' is not a gene"),
        ({".A": "none"}, "'.A' is not a gene"),
        ({"fc.A": "none", "fc.B": "none"}, "layer 'fc' lacks C, D, E"),
        ({f"fc.{s}": "lora_4" for s in SUPPORTS}, "D cannot be 'lora_4'"),
    ],
)
def test_parameters_that_are_no_subnet(params, message):
    with pytest.raises(InvalidConfigError, match=message):
        SubnetConfig.from_params(params)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"layers": 3}',
        '{"layers": {}}',
        '{"layers": {"fc": {"A": "vector", "F": "none"}}}',
        '{"layers": {"fc": {"A": "scalar"}}}',
        '{"layers": {"fc": null}}',
    ],
)
def test_json_that_is_no_subnet(text):
    with pytest.raises(InvalidConfigError):
        SubnetConfig.from_json(text)


def test_json_may_be_formatted_by_hand():
    text = '{"layers":  {"fc": {"E": "vector"}}}\n'
    assert SubnetConfig.from_json(text) == SubnetConfig({"fc": LayerConfig(E="vector")})


def test_layers_must_be_layer_configurations():
    with pytest.raises(InvalidConfigError, match="layer 'fc': expected a LayerConfig"):
        SubnetConfig({"fc": {"A": "vector"}})
