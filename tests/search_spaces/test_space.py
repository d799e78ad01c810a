"""The search space: what it holds, what it costs, and what it refuses."""

import pickle
import random
from collections import Counter
from itertools import product

import pytest
from example_spaces import VIT_B_LAYERS, small_space, vit_b_space
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import (
    SUPPORTS,
    InfeasibleLimitError,
    InvalidConfigError,
    LayerConfig,
    LayerSpec,
    ParamLimits,
    SearchSpace,
    SubnetConfig,
    load_preset,
)

SMALL = small_space()
ALL_OF_SMALL = [SMALL.decode(genome) for genome in product(*(g.choices for g in SMALL.genes))]
CHOICES = {"A": ["vector", "none"], "B": ["none"], "C": ["none"], "D": ["none"], "E": ["none"]}


def test_size_counts_every_subnet_once():
    assert SMALL.size == len(ALL_OF_SMALL) == len({subnet.digest for subnet in ALL_OF_SMALL})


def test_the_published_space_has_432_choices_a_layer():
    """48 layers of ViT-B/16: 10^126 subnets."""
    space = vit_b_space("glora_r4")
    assert space.size == 432**48
    assert len(space.genes) == 240


def test_genes_follow_the_layers_and_the_supports():
    """A cut through a genome is a cut through the network."""
    genes = vit_b_space("glora_r4").genes
    assert [gene.name for gene in genes[:5]] == [f"blocks.0.attn.qkv.{s}" for s in SUPPORTS]
    assert [gene.layer for gene in genes[::5]] == [layer.name for layer in VIT_B_LAYERS]
    assert genes[-1].support == "E"


def test_min_and_max_are_the_extremes_of_all_subnets():
    counts = [SMALL.n_params(subnet) for subnet in ALL_OF_SMALL]
    assert SMALL.n_params(SMALL.min_subnet()) == min(counts)
    assert SMALL.n_params(SMALL.max_subnet()) == max(counts)


def test_count_by_hand():
    """In closed form; the layers are 3 to 5 and 4 to 2."""
    subnet = SubnetConfig(
        {
            "blocks.0.fc1": LayerConfig(A="lora_2", B="constant", C="vector", E="vector"),
            "blocks.1.fc2": LayerConfig(A="vector", B="lora_1", C="none", E="constant"),
        }
    )
    assert SMALL.n_params(subnet) == (2 * 8 + 1 + 3 + 5) + (2 + 6 + 0 + 1)


@settings(deadline=None, derandomize=True)
@given(st.sampled_from(ALL_OF_SMALL))
def test_genomes_round_trip_and_cost_what_their_genes_cost(subnet):
    genome = SMALL.encode(subnet)
    assert SMALL.decode(genome) == subnet
    by_genes = sum(
        gene.costs[gene.choices.index(token)]
        for gene, token in zip(SMALL.genes, genome, strict=True)
    )
    assert SMALL.n_params(subnet) == by_genes


def test_layers_in_another_order_are_the_same_subnet():
    """A mapping's order is whoever made it; genomes have the order of the space."""
    for subnet in ALL_OF_SMALL[::7]:
        turned = SubnetConfig(dict(reversed(subnet.layers.items())))
        assert SMALL.encode(turned) == SMALL.encode(subnet)
        assert SMALL.n_params(turned) == sum(
            subnet.layers[layer.name].n_params(layer) for layer in SMALL.layers
        )


@pytest.mark.parametrize(
    ("genome", "message"),
    [
        (("none",) * 3, "has 10 tokens; got 3"),
        (("none",) * 11, "has 10 tokens; got 11"),
        (("none",) * 9 + ("lora_1",), "E cannot be 'lora_1'"),
    ],
)
def test_a_genome_of_another_space_is_refused(genome, message):
    with pytest.raises(InvalidConfigError, match=message):
        SMALL.decode(genome)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [ParamLimits(), ParamLimits(10, 30)], ids=str)
def test_samples_reach_every_subnet_within_the_limits_and_no_other(limits):
    rng = random.Random(0)
    allowed = {s.digest for s in ALL_OF_SMALL if limits.allow(SMALL.n_params(s))}
    drawn = Counter(SMALL.sample(rng, limits).digest for _ in range(15 * len(allowed)))
    assert drawn.keys() == allowed


def test_limits_are_checked_before_anything_is_drawn():
    with pytest.raises(InfeasibleLimitError, match="admits no subnet"):
        SMALL.check_limits(ParamLimits(min_params=10_000))
    SMALL.check_limits(ParamLimits(max_params=10_000))


def test_validation_names_every_fault():
    """A checkpoint of another space shows at once how it differs."""
    stranger = SubnetConfig(
        {"blocks.0.fc1": LayerConfig(B="constant", D="vector"), "head": LayerConfig()}
    )
    with pytest.raises(InvalidConfigError) as caught:
        SMALL.validate(stranger)
    message = str(caught.value)
    assert "layer 'blocks.1.fc2' is missing" in message
    assert "layer 'head' is not in this space" in message
    assert "blocks.0.fc1.D is 'vector'; accepted: none" in message
    for refuses in (SMALL.n_params, SMALL.encode):
        with pytest.raises(InvalidConfigError):
            refuses(stranger)


@pytest.mark.parametrize(
    ("can_add_bias", "size"), [(True, 4 * 4 * 3 * 1 * 3), (False, 4 * 4 * 1 * 1 * 1)]
)
def test_a_layer_without_bias_has_fewer_choices(can_add_bias, size):
    """EVA's qkv has no bias: D has nothing to scale; C and E may bring one, or may not."""
    layer = LayerSpec("qkv", 8, 24, bias=False, can_add_bias=can_add_bias)
    space = SearchSpace([layer], load_preset("glora_r4").choices)
    assert space.size == size
    rng = random.Random(0)
    subnets = [space.sample(rng) for _ in range(20)]
    assert {subnet.layers["qkv"].D for subnet in subnets} == {"none"}
    with pytest.raises(InvalidConfigError, match=r"qkv\.D is 'vector'; accepted: none"):
        space.validate(SubnetConfig({"qkv": LayerConfig(D="vector")}))


def test_a_layer_without_bias_needs_none_among_the_choices():
    choices = {**CHOICES, "D": ["vector", "constant"]}
    with pytest.raises(InvalidConfigError, match="layer 'qkv' has no bias, so D must be 'none'"):
        SearchSpace([LayerSpec("qkv", 8, 24, bias=False)], choices)


@pytest.mark.parametrize(
    ("layers", "choices", "message"),
    [
        ([], CHOICES, "at least one layer"),
        (VIT_B_LAYERS[:2] + VIT_B_LAYERS[:1], CHOICES, r"more than once: blocks\.0\.attn\.qkv"),
        (VIT_B_LAYERS, {**CHOICES, "F": ["none"]}, "unknown support tensors 'F'"),
        (VIT_B_LAYERS, {**CHOICES, "C": []}, "C has no choices"),
        (VIT_B_LAYERS, {"A": ["none"]}, "B has no choices"),
        (VIT_B_LAYERS, {**CHOICES, "C": ["constant"]}, "C cannot be 'constant'"),
        (VIT_B_LAYERS, {**CHOICES, "A": ["none", "none"]}, "A lists a choice twice"),
    ],
)
def test_impossible_spaces_are_refused(layers, choices, message):
    with pytest.raises(InvalidConfigError, match=message):
        SearchSpace(layers, choices)


def test_ranks_are_the_largest_offered():
    """They size the stored support tensors."""
    assert vit_b_space("mixed").ranks == {"A": 8, "B": 8, "C": 0}
    assert SMALL.ranks == {"A": 2, "B": 1, "C": 0}


def test_a_space_round_trips_through_json_and_pickle():
    """It is written beside every supernet and sent to every worker."""
    layers = (*VIT_B_LAYERS[:2], LayerSpec("qkv", 8, 24, bias=False, can_add_bias=False))
    space = SearchSpace(layers, load_preset("mixed").choices)
    for again in (SearchSpace.from_json(space.to_json()), pickle.loads(pickle.dumps(space))):
        assert again == space
        assert hash(again) == hash(space)
        assert again.genes == space.genes
    assert space != SearchSpace(layers[:2], space.choices)
    assert space != SMALL


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layers": [{"name": "fc"}], "choices": {}}'])
def test_json_that_is_no_space(text):
    with pytest.raises(InvalidConfigError, match="not a search space"):
        SearchSpace.from_json(text)
