"""The adapted layer: parity with the published one, merging, storage, and what `none` costs."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formulas import rebuilt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search_spaces import GLoRASearchError, LayerConfig, LayerSpec, rank_of
from supernet import GLoRALinear, Storage

CASES_FILE = Path(__file__).parents[1] / "data" / "official_layer_cases.npz"
STORAGES: tuple[Storage, ...] = ("entangled", "separate")
TOKENS = {
    "A": ("lora_2", "lora_3", "vector", "constant", "none"),
    "B": ("lora_2", "lora_3", "vector", "constant", "none"),
    "C": ("lora_2", "vector", "none"),
    "D": ("vector", "constant", "none"),
    "E": ("vector", "constant", "none"),
}
MAX_RANK = 3


def configs(bias: bool = True) -> Iterator[LayerConfig]:
    """Every configuration that a layer can take."""
    tokens = TOKENS if bias else {**TOKENS, "D": ("none",)}
    for chosen in itertools.product(*tokens.values()):
        yield LayerConfig(**dict(zip(tokens, chosen, strict=True)))


def layer_of(
    i: int = 5,
    o: int = 7,
    *,
    bias: bool = True,
    ranks: Any = MAX_RANK,
    storage: Storage = "entangled",
    filled: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> GLoRALinear:
    """A layer with random weights and, if `filled`, random support tensors."""
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(i, o, bias=bias, dtype=dtype)
    layer = GLoRALinear(base, ranks, storage, generator=generator)
    with torch.no_grad():
        for parameter in layer.parameters():
            if filled or not parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def inputs(*shape: int, seed: int = 9, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Parity with the published implementation


def official_cases() -> tuple[Any, list[dict[str, Any]]]:
    arrays = np.load(CASES_FILE)
    return arrays, json.loads(str(arrays["meta"]))


def test_there_are_sixty_official_cases() -> None:
    """An empty file would make parity pass."""
    _, meta = official_cases()
    assert len(meta) == 60
    assert {case["bias"] for case in meta} == {True, False}
    forms = {token.partition("_")[0] for case in meta for token in case["config"].values()}
    assert forms == {"lora", "vector", "constant", "none"}


@pytest.mark.parametrize("number", range(60))
def test_parity_with_the_published_layer(number: int) -> None:
    """Forward, merged weights and parameter count are those of the published code."""
    arrays, meta = official_cases()
    case = meta[number]
    stored = {
        name.partition("/")[2]: torch.from_numpy(arrays[name])
        for name in arrays.files
        if name.startswith(f"{number}/")
    }
    base = nn.Linear(
        case["in_features"], case["out_features"], bias=case["bias"], dtype=torch.float64
    )
    layer = GLoRALinear(base, case["rank"])
    names = {
        "weight": "weight",
        "bias": "bias",
        **{f"{s}{part[0]}": f"{s}_{part}" for s in "ABC" for part in ("down", "up")},
        "D": "D",
        "E": "E",
    }
    with torch.no_grad():
        for theirs, mine in names.items():
            if theirs != "bias" or case["bias"]:
                parameter = getattr(layer, mine)
                assert parameter.shape == stored[theirs].shape
                parameter.copy_(stored[theirs])
    layer.config = LayerConfig(**case["config"])
    merged = layer.merged()
    tolerance = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(layer(stored["x"]), stored["y"], **tolerance)
    torch.testing.assert_close(merged(stored["x"]), stored["y"], **tolerance)
    spec = LayerSpec("l", case["in_features"], case["out_features"], case["bias"])
    assert layer.config.n_params(spec) == case["n_params"]
    assert sum(t.numel() for t in layer.active_tensors(layer.config).values()) == case["n_params"]


# An untrained layer is its base


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bias", [True, False])
def test_an_untrained_layer_is_its_base_bit_for_bit(storage: Storage, bias: bool) -> None:
    """Whatever the configuration, forward and merged, in the type that backbones have."""
    layer = layer_of(bias=bias, storage=storage, filled=False, dtype=torch.float32)
    base = nn.Linear(5, 7, bias=bias)
    base.load_state_dict({k: v for k, v in layer.state_dict().items() if k in ("weight", "bias")})
    x = inputs(4, 3, 5, dtype=torch.float32)
    expected = base(x)
    tried = 0
    for config in configs(bias):
        layer.config = config
        merged = layer.merged()
        assert torch.equal(layer(x), expected), config
        assert torch.equal(merged.weight, base.weight), config
        if bias:
            assert torch.equal(merged.bias, base.bias), config
        else:
            assert merged.bias is None or not merged.bias.any(), config
        tried += 1
    assert tried == (675 if bias else 225)


def test_the_initial_values_are_zero_and_xavier() -> None:
    """Of each product one factor is zero and the other is not, so that it can learn."""
    layer = layer_of(40, 30, ranks=4, storage="separate", filled=False)
    for name in layer.adapter_names:
        value = getattr(layer, name)
        if name.endswith("_up"):
            rows, columns = value.shape
            bound = (6 / (rows + columns)) ** 0.5  # Xavier-uniform
            assert 0.5 * bound < value.abs().max() <= bound
        else:
            assert not value.any(), name


def test_a_generator_decides_the_initial_values() -> None:
    """The process's own generator is neither asked nor changed."""
    base, before = nn.Linear(5, 7), torch.get_rng_state()
    ups = [
        GLoRALinear(base, 2, generator=torch.Generator().manual_seed(seed)).A_up
        for seed in (1, 1, 2)
    ]
    assert torch.equal(ups[0], ups[1])
    assert not torch.equal(ups[0], ups[2])
    assert torch.equal(torch.get_rng_state(), before)


# Merging


def drawn_config(draw: st.DrawFn, ranks: dict[str, int], bias: bool) -> LayerConfig:
    tokens = {}
    for support in "ABCDE":
        accepted = ["none", "vector"] + (["constant"] if support != "C" else [])
        accepted += [f"lora_{r}" for r in range(1, ranks.get(support, 0) + 1)]
        tokens[support] = draw(st.sampled_from(accepted if bias or support != "D" else ["none"]))
    return LayerConfig(**tokens)


@st.composite
def layers(draw: st.DrawFn) -> GLoRALinear:
    """Filled layers of any shape, storage and configuration, in float64."""
    ranks = {s: draw(st.integers(0, 4)) for s in "ABC"}
    bias = draw(st.booleans())
    layer = layer_of(
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
        bias=bias,
        ranks=ranks,
        storage=draw(st.sampled_from(STORAGES)),
        seed=draw(st.integers(0, 2**31)),
    )
    layer.config = drawn_config(draw, ranks, bias)
    return layer


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(layers(), st.lists(st.integers(1, 4), max_size=3))
def test_the_merged_layer_computes_what_the_layer_computes(
    layer: GLoRALinear, batch: list[int]
) -> None:
    x = inputs(*batch, layer.in_features)
    torch.testing.assert_close(layer.merged()(x), layer(x), rtol=1e-10, atol=1e-11)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(layers())
def test_merging_is_out_of_place(layer: GLoRALinear) -> None:
    """Nothing of the layer changes, and the merged one shares no memory with it."""
    before = copy.deepcopy(layer.state_dict())
    config = layer.config
    merged = layer.merged()
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.config == config


def test_a_merge_adds_up_in_float64_and_casts_once() -> None:
    """In float32 the rounding of every product would add up."""
    layer = layer_of(33, 31, dtype=torch.float32)
    layer.config = LayerConfig(A="lora_3", B="lora_3", C="vector", D="vector", E="vector")
    exact = layer_of(33, 31)
    exact.load_state_dict(layer.state_dict())
    exact.config = layer.config
    merged, reference = layer.merged(), exact.merged()
    assert merged.weight.dtype == torch.float32
    assert torch.equal(merged.weight, reference.weight.float())
    assert torch.equal(merged.bias, reference.bias.float())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_merge_rounds_as_the_formula_reads(storage: Storage, dtype: torch.dtype) -> None:
    """Bit for bit, into new memory or into given memory: else a study's figures would change with
    the way in which an evaluation merges.
    """
    layer = layer_of(48, 33, storage=storage, dtype=torch.float32)
    weight = layer.weight.detach().to(dtype)
    for config in configs():
        expected = weight
        if config.A != "none":
            expected = expected + weight * layer.support("A", config.A, dtype=dtype).detach()
        if config.B != "none":
            expected = expected + layer.support("B", config.B, dtype=dtype).detach()
        memory = torch.full_like(layer.weight, torch.nan)
        given_memory, _ = layer.merged_tensors(config, dtype=dtype, out=memory)
        own_memory, _ = layer.merged_tensors(config, dtype=dtype)
        for merged in (given_memory, own_memory):
            assert torch.equal(merged, expected.to(torch.float32)), config
        if (config.A, config.B) != ("none", "none"):
            assert (given_memory is memory) == (dtype == torch.float32), config
            assert own_memory is not layer.weight


def test_without_a_configuration_the_layer_is_its_base() -> None:
    layer = layer_of()
    x = inputs(2, 5)
    assert layer.config is None
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert torch.equal(layer.merged().weight, layer.weight)


# `none` is free of cost


class RecordOperators(TorchDispatchMode):
    """The names of all operators that reach the backend, with the shapes of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.append((str(func), tuple(getattr(result, "shape", ()))))
        return result


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("storage", STORAGES)
def test_all_none_dispatches_what_a_plain_linear_dispatches(storage: Storage, bias: bool) -> None:
    layer = layer_of(bias=bias, storage=storage)
    plain = layer.merged()
    x = inputs(2, 3, 5)
    recorded = []
    layer.config = LayerConfig()
    for module in (layer, plain):
        with RecordOperators() as mode:
            module(x)
        recorded.append(mode.operators)
    assert recorded[0] == recorded[1]
    assert recorded[0]
    layer.config = LayerConfig(A="constant")
    with RecordOperators() as mode:
        layer(x)
    assert mode.operators != recorded[1], "the recording tells a difference"


def tensors_in_use(config: LayerConfig, storage: Storage) -> set[str]:
    """As the design says where the choices of one support tensor live."""
    used = set()
    for support, token in config.items():
        if rank_of(token):
            used |= {f"{support}_down", f"{support}_up"}
        elif token == "none":
            continue
        elif storage == "separate" and not (support in "DE" and token == "vector"):
            used.add(f"{support}_{token}")
        else:
            used.add(support if support in "DE" else f"{support}_down")
    return used


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
def test_only_what_a_configuration_uses_gets_a_gradient(storage: Storage) -> None:
    """`none` gets none at all, not zeros; so do the frozen weights."""
    layer = layer_of(storage=storage)
    x = inputs(4, 5)
    for config in configs():
        layer.zero_grad(set_to_none=True)
        layer.config = config
        y = layer(x)
        if y.requires_grad:
            (y * inputs(4, 7, seed=3)).sum().backward()
        touched = {name for name, p in layer.named_parameters() if p.grad is not None}
        assert touched == tensors_in_use(config, storage), config


def test_columns_beyond_the_rank_get_no_gradient() -> None:
    layer = layer_of(ranks=4)
    layer.config = LayerConfig(A="lora_2", B="lora_3", C="lora_1")
    layer(inputs(4, 5)).square().sum().backward()
    for support, rank in (("A", 2), ("B", 3), ("C", 1)):
        down, up = getattr(layer, f"{support}_down").grad, getattr(layer, f"{support}_up").grad
        assert down[:, :rank].all()
        assert up[:rank].all()
        assert not down[:, rank:].any()
        assert not up[rank:].any()


def test_the_base_is_shared_and_frozen() -> None:
    base = nn.Linear(5, 7)
    layer = GLoRALinear(base, 2)
    assert layer.weight is base.weight
    assert layer.bias is base.bias
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == set(layer.adapter_names)
    assert not {"weight", "bias"} & trained


# Storage


def test_entangled_choices_are_corners_of_one_tensor() -> None:
    """The published sharing: a vector is column 0, a constant entry [0, 0]."""
    layer = layer_of(ranks=3)
    for support in "AB":
        down, up = getattr(layer, f"{support}_down"), getattr(layer, f"{support}_up")
        assert torch.equal(layer.support(support, "lora_2"), down[:, :2] @ up[:2])
        assert torch.equal(layer.support(support, "vector"), down[:, :1])
        assert torch.equal(layer.support(support, "constant"), down[0, 0])
    assert torch.equal(layer.support("C", "lora_3"), layer.C_down @ layer.C_up)
    assert torch.equal(layer.support("C", "vector"), layer.C_down[:, :1])
    for support in "DE":
        assert torch.equal(layer.support(support, "vector"), getattr(layer, support))
        assert torch.equal(layer.support(support, "constant"), getattr(layer, support)[0])


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_decides_which_choices_change_together(storage: Storage) -> None:
    """Training one choice moves the others where they are entangled, and only there."""
    for support, tokens in TOKENS.items():
        active = [token for token in tokens if token != "none" and token != "lora_2"]
        for trained, watched in itertools.permutations(active, 2):
            layer = layer_of(storage=storage)
            before = layer.support(support, watched).detach().clone()
            (name, *_) = sorted(tensors_in_use(LayerConfig(**{support: trained}), storage))
            with torch.no_grad():
                getattr(layer, name).add_(1)
            changed = not torch.equal(layer.support(support, watched), before)
            assert changed == (storage == "entangled"), (support, trained, watched)


@pytest.mark.parametrize("storage", STORAGES)
def test_ranks_nest(storage: Storage) -> None:
    """`lora_2` of a layer of rank 4 is a layer of rank 2 with the first two columns and rows."""
    large, small = layer_of(ranks=4, storage=storage), layer_of(ranks=2, storage=storage)
    state = large.state_dict()
    for name, value in small.state_dict().items():
        state[name] = state[name][tuple(slice(n) for n in value.shape)]
    small.load_state_dict(state)
    x = inputs(6, 5)
    for config in configs():
        if "lora_3" not in (config.A, config.B):
            large.config = small.config = config
            assert torch.equal(large(x), small(x)), config


# What is exported


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bias", [True, False])
def test_active_tensors_rebuild_the_merged_layer(storage: Storage, bias: bool) -> None:
    """So an adapter file says everything, and holds as many scalars as are counted."""
    layer = layer_of(bias=bias, storage=storage)
    spec = LayerSpec("l", 5, 7, bias)
    for config in configs(bias):
        layer.config = config
        tensors = layer.active_tensors(config)
        weight, added = rebuilt(layer.weight, layer.bias, tensors)
        merged = layer.merged()
        torch.testing.assert_close(merged.weight, weight, rtol=0, atol=1e-12)
        if merged.bias is not None:
            torch.testing.assert_close(merged.bias, added, rtol=0, atol=1e-12)
        else:
            assert not added.any()
        assert sum(t.numel() for t in tensors.values()) == config.n_params(spec), config
        assert not any(t.requires_grad for t in tensors.values())


# Errors


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (LayerConfig(A="lora_4"), "A is 'lora_4', but the layer stores rank 3"),
        (LayerConfig(B="lora_2"), "B is 'lora_2', but the layer stores rank 1"),
        (LayerConfig(C="lora_1"), "C is 'lora_1', but the layer stores rank 0"),
        (LayerConfig(D="constant"), "no bias, so D must be 'none'; got 'constant'"),
    ],
)
def test_what_the_layer_cannot_do_is_refused(config: LayerConfig, told: str) -> None:
    layer = layer_of(bias=False, ranks={"A": 3, "B": 1, "C": 0})
    layer.config = LayerConfig(A="lora_3")
    for refuse in (
        lambda: setattr(layer, "config", config),
        lambda: layer.merged_tensors(config),
        lambda: layer.active_tensors(config),
    ):
        with pytest.raises(GLoRASearchError, match=told):
            refuse()
    assert layer.config == LayerConfig(A="lora_3"), "the old one is kept"


def test_unknown_storage_and_wrong_ranks_are_refused() -> None:
    base = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="'entangled' or 'separate'; got 'shared'"):
        GLoRALinear(base, 2, "shared")  # type: ignore[arg-type]
    for ranks in (-1, {"A": 1, "B": -1, "C": 1}, {"A": 1}):
        with pytest.raises(ValueError, match="ranks must give A, B and C 0 or more"):
            GLoRALinear(base, ranks)
