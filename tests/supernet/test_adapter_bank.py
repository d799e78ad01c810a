"""The bank of adapters: switched, detached, in mixed batches and from files, on every family.

All support tensors are filled: adapters of zeros would agree with anything.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from small_networks import (
    DIGITS,
    EVA,
    FAMILIES,
    VIT_WITHOUT_QKV_BIAS,
    backbone_of,
    each_of,
    fill_support_tensors,
    images_for,
    space_of,
)
from torch import Tensor, nn

from search_spaces import (
    GLoRASearchError,
    InvalidConfigError,
    LayerConfig,
    SearchSpace,
    SubnetConfig,
)
from supernet import (
    Adapter,
    AdapterBank,
    Architecture,
    GLoRALinear,
    Preprocessing,
    Storage,
    Supernet,
    adapter_bank,
)
from supernet.errors import AdapterError, BackboneError, CheckpointError
from supernet.export import subnet_export, write_export
from supernet.fingerprints import backbone_fingerprint

families = each_of()
storages = pytest.mark.parametrize("storage", ["entangled", "separate"])

# timm adds their biases of q and v to the product in one operation, the supernet in two.
ONE_ROUNDING_APART = {"EVA", "BEiT", "Swin v2"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """An adapter, and the merged model that an export of it holds."""

    adapter: Adapter
    merged: nn.Module
    supernet: Supernet
    classes: int


def plain(architecture: Architecture, classes: int = 5) -> Any:
    """The backbone, always with the same weights, and a head for so many classes."""
    model = backbone_of(architecture)
    if classes != model.num_classes:
        model.reset_classifier(classes)
    return model.eval()


@functools.cache
def tasks_of(architecture: str, storage: Storage = "entangled") -> Mapping[str, Task]:
    """Four tasks with class counts of their own: all that can be adapted, some of it, nothing."""
    built = FAMILIES.get(architecture, DIGITS)
    tasks = {}
    for seed, (name, classes) in enumerate({"all": 7, "some": 3, "others": 4, "head": 2}.items()):
        model = plain(built, classes)
        space = space_of(model, built)
        supernet = Supernet(model, space, storage=storage).eval()
        fill_support_tensors(supernet, seed=seed)
        chosen = {"all": space.max_subnet(), "head": space.min_subnet()}
        subnet = chosen.get(name) or half_of(space, seed)
        tasks[name] = Task(
            adapter=Adapter.of(supernet, subnet),
            merged=supernet.merge(subnet),
            supernet=supernet,
            classes=classes,
        )
    return tasks


def half_of(space: SearchSpace, seed: int) -> SubnetConfig:
    """A random subnet that leaves about every second layer as it is."""
    rng = random.Random(seed)
    layers = space.sample(rng).layers
    return SubnetConfig(
        {name: config if rng.random() < 0.5 else LayerConfig() for name, config in layers.items()}
    )


def bank_of(family: str, storage: Storage = "entangled", **how: Any) -> AdapterBank:
    """A bank with the four tasks; `digits` is the smallest network."""
    bank = AdapterBank(plain(FAMILIES.get(family, DIGITS)), **how)
    for name, task in tasks_of(family, storage).items():
        bank.add(name, task.adapter)
    return bank


def logits(model: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(model: nn.Module, expected: Mapping[str, Tensor]) -> None:
    """Bit for bit; timm adds biases of zeros to all layers of a kind, a bank does not."""
    state = model.state_dict()
    assert state.keys() <= expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state.get(name, torch.zeros_like(tensor)), tensor), name


# What an attached adapter computes


@pytest.mark.slow
@families
@storages
def test_an_attached_task_is_its_merged_model(family: str, storage: Storage) -> None:
    """Bit for bit where weights are added up in float64, as in an export."""
    bank = bank_of(family, storage, dtype=torch.float64)
    images = images_for(bank.backbone)
    of_the_backbone = logits(bank, images)
    for name, task in tasks_of(family, storage).items():
        bank.attach(name)
        assert_same_weights(bank.backbone, task.merged.state_dict())
        found, expected = logits(bank, images), logits(task.merged, images)
        assert found.shape == (3, task.classes)
        assert bank.backbone.num_classes == task.classes
        for head in task.supernet.head_names:
            assert bank.backbone.get_submodule(head).out_features == task.classes
        if family in ONE_ROUNDING_APART:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found, expected)
        assert name == "head" or (found[:, :2] - of_the_backbone[:, :2]).abs().max() > 1e-2


@pytest.mark.slow
@families
def test_in_float32_it_is_the_merged_model_nearly(family: str) -> None:
    bank = bank_of(family)
    for name, task in tasks_of(family).items():
        bank.attach(name)
        state = bank.backbone.state_dict()
        for key, tensor in task.merged.state_dict().items():
            found = state.get(key, torch.zeros_like(tensor))
            torch.testing.assert_close(found, tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_float32_and_float64_round_differently() -> None:
    """Else the test before would say nothing of float32, or the one before it of float64."""
    states = []
    for dtype in (torch.float32, torch.float64):
        bank = bank_of("digits", dtype=dtype)
        bank.attach("all")
        states.append(copied(bank.backbone))
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_backbone_of_another_dtype_keeps_it(dtype: torch.dtype) -> None:
    """The adapters of a supernet in float32 do not fit one in bf16: its weights are others."""
    supernet = tasks_of("digits")["all"].supernet
    with pytest.raises(CheckpointError, match="another backbone"):
        AdapterBank(plain(DIGITS).to(dtype)).add("all", tasks_of("digits")["all"].adapter)
    model = plain(DIGITS, 7).to(dtype)
    rounded = Supernet(model, supernet.space).eval()
    rounded.load_trainable_state(supernet.trainable_state())
    subnet = supernet.space.max_subnet()
    bank = AdapterBank(plain(DIGITS).to(dtype), dtype=torch.float64)
    bank.add("all", Adapter.of(rounded, subnet))
    bank.attach("all")
    assert_same_weights(bank.backbone, rounded.merge(subnet).state_dict())
    assert {parameter.dtype for parameter in bank.backbone.parameters()} == {dtype}


def test_the_modes_of_the_caller_change_nothing() -> None:
    """Weights that were merged in inference mode can be merged again, and autocast rounds none."""
    bank, expected = bank_of("digits"), bank_of("digits")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        bank.remove("all")
        bank.add("all", tasks_of("digits")["all"].adapter)
        bank.attach("all")
    for name in ("some", "all"):
        bank.attach(name)
        expected.attach(name)
    assert_same_weights(bank.backbone, expected.backbone.state_dict())
    assert not any(tensor.is_inference() for tensor in bank.backbone.parameters())
    bank.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bank.attach("all")
    assert_same_weights(bank.backbone, expected.backbone.state_dict())


# Switching


@pytest.mark.slow
@families
@storages
def test_after_any_switches_the_backbone_is_what_it_was(family: str, storage: Storage) -> None:
    """The same parameters with the same bits, the same number of classes, the same logits."""
    bank = bank_of(family, storage)
    model = bank.backbone
    fresh = plain(FAMILIES[family])
    parameters, images = dict(model.named_parameters()), images_for(model)
    assert model.num_classes == 5
    for name in ("all", "head", "some", "all", "others", "some"):
        bank.attach(name)
    bank.detach()
    assert bank.active is None
    assert dict(model.named_parameters()).items() == parameters.items()
    assert_same_weights(model, fresh.state_dict())
    assert model.num_classes == 5
    assert str(model) == str(fresh), "the number of classes of each head"
    assert torch.equal(logits(bank, images), logits(fresh, images))


def test_only_what_a_task_adapts_is_replaced() -> None:
    """All else is the backbone's own parameter, not a copy; a switch back finds the same memory."""
    bank = bank_of("digits")
    own = dict(bank.backbone.named_parameters())
    bank.attach("all")
    memory = {name: p.data_ptr() for name, p in bank.backbone.named_parameters()}
    assert not any(bank.backbone.get_parameter(name) is own[name] for name in own if "mlp" in name)
    bank.attach("some")
    replaced = {n for n, p in bank.backbone.named_parameters() if p is not own[n]}
    expected = {"head.weight", "head.bias"}
    for layer, config in tasks_of("digits")["some"].adapter.subnet.layers.items():
        if config.A != "none" or config.B != "none":
            expected.add(f"{layer}.weight")
        if {config.C, config.D, config.E} != {"none"}:
            expected.add(f"{layer}.bias")
    assert replaced == expected
    assert len(expected) < len(own) / 2
    bank.attach("all")
    assert {name: p.data_ptr() for name, p in bank.backbone.named_parameters()} == memory


def test_attaching_what_is_attached_merges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    merges: list[object] = []
    whole = adapter_bank.merged_weight

    def counted(*args: Any, **how: Any) -> Tensor:
        merges.append(args)
        return whole(*args, **how)

    monkeypatch.setattr(adapter_bank, "merged_weight", counted)
    bank = bank_of("digits")
    assert merges == []
    bank.attach("all")
    assert len(merges) == len(tasks_of("digits")["all"].adapter.subnet.layers)
    merges.clear()
    bank.attach("all")
    bank.detach()
    bank.attach("head")
    assert merges == []


def test_a_switch_that_fails_leaves_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory at the third layer: never half of a task."""
    bank = bank_of("digits")
    bank.attach("some")
    left = [None, None]
    whole = adapter_bank.merged_weight

    def failing(*args: Any, **how: Any) -> Tensor:
        if not left:
            raise MemoryError
        left.pop()
        return whole(*args, **how)

    with monkeypatch.context() as patched:
        patched.setattr(adapter_bank, "merged_weight", failing)
        with pytest.raises(MemoryError):
            bank.attach("all")
    assert bank.active is None
    assert_same_weights(bank.backbone, plain(DIGITS).state_dict())
    bank.attach("all")
    assert bank.active == "all"


def test_a_task_that_is_removed_is_detached_and_its_name_is_free() -> None:
    bank = bank_of("digits")
    bank.attach("all")
    bank.remove("all")
    assert bank.active is None
    assert bank.names == ("some", "others", "head")
    assert_same_weights(bank.backbone, plain(DIGITS).state_dict())
    bank.attach("some")
    bank.remove("head")
    assert bank.active == "some"
    bank.add("all", tasks_of("digits")["head"].adapter)
    bank.attach("all")
    assert_same_weights(bank.backbone, tasks_of("digits")["head"].merged.state_dict())


def test_memory_that_no_task_needs_is_given_back() -> None:
    """As much as the backbone's own, once the last task is removed, and not before."""
    bank = bank_of("digits")
    bank.attach("all")
    merged = weakref.ref(bank.backbone.get_parameter("blocks.0.mlp.fc1.weight"))
    for name in ("some", "others", "head"):
        bank.remove(name)
    assert merged() is bank.backbone.get_parameter("blocks.0.mlp.fc1.weight")
    bank.remove("all")
    assert merged() is None


def test_adapters_are_copied() -> None:
    """The supernet goes on training; whoever made the adapter reuses its tensors."""
    supernet = tasks_of("digits")["all"].supernet
    before = {name: tensor.clone() for name, tensor in supernet.trainable_state().items()}
    adapter = Adapter.of(supernet, supernet.space.max_subnet())
    bank = AdapterBank(plain(DIGITS), dtype=torch.float64)
    with torch.no_grad():
        for tensor in supernet.trainable_state().values():
            tensor.add_(1)
    bank.add("all", adapter)
    for tensor in adapter.tensors.values():
        tensor.zero_()
    supernet.load_trainable_state(before)
    bank.attach("all")
    assert_same_weights(bank.backbone, tasks_of("digits")["all"].merged.state_dict())


def test_an_adapter_that_is_added_while_another_is_attached() -> None:
    """It is merged with the backbone's own weights and biases, not with those of the other."""
    bank = AdapterBank(plain(DIGITS), dtype=torch.float64)
    for name, task in tasks_of("digits").items():
        bank.add(name, task.adapter)
        bank.attach(name)
        assert_same_weights(bank.backbone, task.merged.state_dict())


# Mixed batches


@pytest.mark.slow
@each_of(["ViT without qkv bias", "DeiT, distilled", "EVA-02", "Swin v2"])
@pytest.mark.parametrize("before", [None, "all", "others"])
def test_a_mixed_batch_is_each_task_alone(family: str, before: str | None) -> None:
    """Each image gets the logits of its own task, at its own place."""
    bank = bank_of(family)
    images = images_for(bank.backbone, 7)
    names = ["some", "all", "head", "some", "all", "all", "some"]
    if before is not None:
        bank.attach(before)
    found = bank.classify(images, names)
    assert bank.active == before
    assert [len(row) for row in found] == [3, 7, 2, 3, 7, 7, 3]
    for name in set(names):
        places = [place for place, task in enumerate(names) if task == name]
        alone = bank_of(family)
        alone.attach(name)
        together = torch.stack([found[place] for place in places])
        assert torch.equal(together, logits(alone, images[places]))
        assert len(places) == 1 or (together[0] - together[1]).abs().max() > 1e-3, "same images"


def test_each_task_runs_once_and_the_attached_one_first() -> None:
    """A batch of b images must not cost b forwards, nor a switch that order can save."""
    bank = bank_of("digits")
    bank.attach("some")
    ran: list[tuple[str | None, int]] = []
    bank.backbone.register_forward_pre_hook(lambda _, args: ran.append((bank.active, len(args[0]))))
    bank.classify(images_for(bank.backbone, 5), ["all", "some", "all", "head", "some"])
    assert ran == [("some", 2), ("all", 2), ("head", 1)]


def test_an_empty_batch_has_no_logits() -> None:
    bank = bank_of("digits")
    assert bank.classify(images_for(bank.backbone, 2)[:0], []) == []


@pytest.mark.parametrize("before", [None, "some"])
def test_a_batch_that_fails_leaves_what_was_attached(before: str | None) -> None:
    """An unknown task is found before anything runs; images of a wrong size fail on the way."""
    bank = bank_of("digits")
    if before is not None:
        bank.attach(before)
    state = copied(bank.backbone)
    images = images_for(bank.backbone, 2)
    ran: list[object] = []
    bank.backbone.register_forward_pre_hook(lambda _, args: ran.append(args))
    with pytest.raises(AdapterError, match="no adapter 'birds'"):
        bank.classify(images, ["all", "birds"])
    with pytest.raises(AdapterError, match="2 images need as many tasks; got 1"):
        bank.classify(images, ["all"])
    assert ran == []
    with pytest.raises(AssertionError, match="Input"):
        bank.classify(images[..., :4], ["all", "some"])
    assert bank.active == before
    assert_same_weights(bank.backbone, state)


# Names


def test_names_that_are_unknown_or_taken_are_refused() -> None:
    bank = bank_of("digits")
    bank.attach("some")
    for call in (bank.attach, bank.remove):
        with pytest.raises(AdapterError, match="no adapter 'al'; the bank has 'all', 'some', "):
            call("al")
    with pytest.raises(AdapterError, match="'all' already; remove it first"):
        bank.add("all", tasks_of("digits")["some"].adapter)
    assert bank.active == "some"
    assert bank.names == tuple(tasks_of("digits"))
    with pytest.raises(AdapterError, match="the bank has none"):
        AdapterBank(plain(DIGITS)).attach("all")


# Files


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the task `all` of the backbone without qkv bias."""
    directory = tmp_path_factory.mktemp("export") / "all"
    task, built = tasks_of("ViT without qkv bias")["all"], VIT_WITHOUT_QKV_BIAS
    write_export(
        directory,
        subnet_export(task.supernet, task.adapter.subnet),
        architecture=replace(built, num_classes=task.classes),
        preprocessing=Preprocessing.from_model(plain(built)),
        class_names=None,
        record={"fingerprints": {"backbone": backbone_fingerprint(plain(built))}},
    )
    return directory


@pytest.mark.parametrize("as_text", [True, False])
def test_an_export_is_added_by_its_directory(exported: Path, as_text: bool) -> None:
    bank = AdapterBank(plain(VIT_WITHOUT_QKV_BIAS), dtype=torch.float64)
    bank.add("all", str(exported) if as_text else exported)
    bank.attach("all")
    task = tasks_of("ViT without qkv bias")["all"]
    assert_same_weights(bank.backbone, task.merged.state_dict())
    biased = bank.backbone.get_parameter("blocks.0.attn.qkv.bias")
    assert biased.abs().max() > 0.1, "an added bias"
    bank.detach()
    assert bank.backbone.get_submodule("blocks.0.attn.qkv").bias is None


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def turn_bits(path: Path) -> None:
    """The last float becomes infinite or no number."""
    path.write_bytes(path.read_bytes()[:-2] + b"\x80\x7f")


def edit(**changes: Any) -> Any:
    """Other entries in subnet.json."""

    def change(path: Path) -> None:
        record = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps(record))

    return change


DAMAGES: Mapping[str, tuple[str, Any, str]] = {
    "no weights": ("adapter.safetensors", Path.unlink, "adapter.safetensors"),
    "no record": ("subnet.json", Path.unlink, "subnet.json"),
    "empty": ("adapter.safetensors", lambda path: path.write_bytes(b""), "damaged one"),
    "truncated": ("adapter.safetensors", truncate, "damaged one"),
    "turned bits": ("adapter.safetensors", turn_bits, "'task' is damaged: .* finite"),
    "no JSON": ("subnet.json", truncate, "not a subnet"),
    "no text": ("subnet.json", lambda path: path.write_bytes(b"\xff\xfe"), "damaged one"),
    "no object": ("subnet.json", lambda path: path.write_text("[]"), "not a subnet"),
    "unknown token": ("subnet.json", edit(layers={"x": {"A": "lora_0"}}), "A cannot be 'lora_0'"),
    "no fingerprints": ("subnet.json", edit(fingerprints={}), "does not say on which backbone"),
    "odd fingerprints": ("subnet.json", edit(fingerprints=[1]), "damaged one"),
    "another backbone": (
        "subnet.json",
        edit(fingerprints={"backbone": "0123456789abcdef"}),
        r"another backbone: its fingerprint is 0123456789ab…, that of the backbone here \w{12}…",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_refused(damage: str, exported: Path, tmp_path: Path) -> None:
    """With one clear error; the bank is as it was."""
    file, harm, told = DAMAGES[damage]
    directory = tmp_path / "copy"
    shutil.copytree(exported, directory)
    harm(directory / file)
    bank = AdapterBank(plain(VIT_WITHOUT_QKV_BIAS))
    with pytest.raises(CheckpointError, match=told) as raised:
        bank.add("task", directory)
    assert isinstance(raised.value, GLoRASearchError)
    assert bank.names == ()
    bank.add("task", exported)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="birds"):
        AdapterBank(plain(DIGITS)).add("task", tmp_path / "birds")


def test_weights_beside_the_record_of_another_export_are_refused(
    exported: Path, tmp_path: Path
) -> None:
    """Files that were renamed or mixed up: the first tensor that differs is named."""
    other = tasks_of("ViT without qkv bias")["some"].adapter
    shutil.copytree(exported, tmp_path / "copy")
    edit(layers=json.loads(other.subnet.to_json())["layers"])(tmp_path / "copy" / "subnet.json")
    bank = AdapterBank(plain(VIT_WITHOUT_QKV_BIAS))
    with pytest.raises(CheckpointError, match=r"tensors differ, such as 'blocks.*absent"):
        bank.add("task", tmp_path / "copy")


# Adapters that do not fit


def changed(adapter: Adapter, **tensors: Tensor | None) -> Adapter:
    """With other tensors, or without some; `__` in a name is a dot."""
    renamed = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    merged = {**adapter.tensors, **renamed}
    return replace(adapter, tensors={n: t for n, t in merged.items() if t is not None})


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"head__weight": torch.ones(7, 17)}, r"'head.weight' \(here \(7, 16\).*\(7, 17\)\)"),
        ({"head__bias": torch.ones(6)}, r"here \(7,\), in adapter 'task' \(6,\)"),
        ({"head__weight": None}, r"'head.weight' .*absent"),
        ({"head__weight": torch.ones(())}, "'head.weight'"),
        ({"blocks__0__attn__qkv__A_down": None}, "'blocks.0.attn.qkv.A_down'.*absent"),
        ({"blocks__0__attn__qkv__A_up": torch.ones(3, 16)}, r"here \(4, 16\).*\(3, 16\)"),
        ({"blocks__9__x": torch.ones(1)}, r"'blocks.9.x' \(here absent"),
        ({"head__bias": torch.tensor([0, 1, 2, 3, 4, 5, torch.nan])}, "'head.bias' has values"),
        ({"head__bias": torch.ones(7, dtype=torch.int64)}, "'head.bias' has values"),
    ],
)
def test_tensors_that_are_not_those_of_the_configuration_are_refused(
    tensors: dict[str, Tensor | None], told: str
) -> None:
    bank = AdapterBank(plain(DIGITS))
    with pytest.raises(CheckpointError, match=told):
        bank.add("task", changed(tasks_of("digits")["all"].adapter, **tensors))
    assert bank.names == ()


@pytest.mark.parametrize("layer", ["blocks.7.attn.qkv", "blocks.0.norm1", "blocks", "head"])
def test_a_layer_that_the_backbone_does_not_adapt_is_refused(layer: str) -> None:
    adapter = tasks_of("digits")["all"].adapter
    wrong = replace(adapter, subnet=SubnetConfig({layer: LayerConfig()}))
    with pytest.raises(BackboneError, match=rf"'task' adapts '{layer}', which is no linear layer"):
        AdapterBank(plain(DIGITS)).add("task", wrong)


def test_a_factor_for_a_bias_that_is_not_there_is_refused() -> None:
    adapter = tasks_of("ViT without qkv bias")["all"].adapter
    layer = "blocks.0.attn.qkv"
    layers = {**adapter.subnet.layers, layer: LayerConfig(D="vector")}
    with pytest.raises(CheckpointError, match=f"has D 'vector' in '{layer}', which has"):
        AdapterBank(plain(VIT_WITHOUT_QKV_BIAS)).add(
            "task", replace(adapter, subnet=SubnetConfig(layers))
        )


def test_a_bias_that_the_backbone_would_not_add_is_refused() -> None:
    """EVA adds biases of its own to q and v, and calls no layer there."""
    model = plain(EVA)
    layers = [replace(spec, can_add_bias=True) for spec in space_of(model, EVA).layers]
    choices = {**{support: ["none"] for support in "ABCD"}, "E": ["vector"]}
    supernet = Supernet(model, SearchSpace(layers, choices)).eval()
    fill_support_tensors(supernet)
    with pytest.raises(BackboneError, match=r"never calls 'blocks.0.attn.qkv'"):
        AdapterBank(plain(EVA)).add("task", Adapter.of(supernet, supernet.space.max_subnet()))


def test_a_subnet_of_another_space_is_no_adapter() -> None:
    supernet = tasks_of("digits")["all"].supernet
    with pytest.raises(InvalidConfigError):
        Adapter.of(supernet, SubnetConfig({"blocks.0.attn.qkv": LayerConfig()}))


def test_the_backbone_is_frozen_and_has_a_head() -> None:
    model = plain(DIGITS).requires_grad_(True).train()
    bank = AdapterBank(model)
    assert not bank.backbone.training
    assert not any(parameter.requires_grad for parameter in bank.backbone.parameters())
    assert not any(isinstance(module, GLoRALinear) for module in bank.backbone.modules())
    headless = replace(DIGITS, num_classes=0).build()
    with pytest.raises(BackboneError, match="no classifier head"):
        AdapterBank(headless)


# Any sequence of operations

NAMES = st.sampled_from([*tasks_of("ViT without qkv bias"), "unknown"])


class Banks(RuleBasedStateMachine):
    """A bank beside what it should be: the tasks that it has, and the one that is attached.

    After each step its weights are those of an export of the attached task, or the backbone's own
    parameters with the bits that they had.
    """

    @initialize()
    def start(self) -> None:
        self.tasks = tasks_of("ViT without qkv bias")
        self.bank = AdapterBank(plain(VIT_WITHOUT_QKV_BIAS), dtype=torch.float64)
        self.parameters = dict(self.bank.backbone.named_parameters())
        self.state = copied(self.bank.backbone)
        self.names: list[str] = []
        self.active: str | None = None

    @rule(name=NAMES)
    def add(self, name: str) -> None:
        if name in self.names:
            with pytest.raises(AdapterError):
                self.bank.add(name, self.tasks["head"].adapter)
        elif name in self.tasks:
            self.bank.add(name, self.tasks[name].adapter)
            self.names.append(name)

    @rule(name=NAMES)
    def attach(self, name: str) -> None:
        if name in self.names:
            self.bank.attach(name)
            self.active = name
        else:
            with pytest.raises(AdapterError):
                self.bank.attach(name)

    @rule()
    def detach(self) -> None:
        self.bank.detach()
        self.active = None

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name not in self.names:
            with pytest.raises(AdapterError):
                self.bank.remove(name)
            return
        self.bank.remove(name)
        self.names.remove(name)
        self.active = None if name == self.active else self.active

    @rule(names=st.lists(NAMES, max_size=3))
    def classify(self, names: list[str]) -> None:
        images = images_for(self.bank.backbone, 3)[: len(names)]
        if set(names) <= set(self.names):
            found = self.bank.classify(images, names)
            assert [len(row) for row in found] == [self.tasks[name].classes for name in names]
        else:
            with pytest.raises(AdapterError):
                self.bank.classify(images, names)

    @invariant()
    def the_weights_are_those_of_the_attached_task(self) -> None:
        assert (self.bank.active, self.bank.names) == (self.active, tuple(self.names))
        backbone = self.bank.backbone
        if self.active is not None:
            assert_same_weights(backbone, self.tasks[self.active].merged.state_dict())
        else:
            assert dict(backbone.named_parameters()).items() == self.parameters.items()
            assert_same_weights(backbone, self.state)
        assert all(torch.equal(p, self.state[name]) for name, p in self.parameters.items())


TestAnySequenceOfOperations = pytest.mark.slow(Banks.TestCase)
TestAnySequenceOfOperations.settings = settings(
    deadline=None, derandomize=True, max_examples=30, stateful_step_count=20
)
