"""Exports: a plain timm model, loaded where this project cannot be imported, and what is beside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formulas import rebuilt
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_networks import (
    DIGITS,
    FAMILIES,
    VIT_WITHOUT_QKV_BIAS,
    backbone_of,
    digits,
    each_of,
    fill_support_tensors,
    filled_supernet,
    images_for,
    space_of,
    subnets_of,
)
from torch import Tensor, nn

from search_spaces import LayerConfig, SubnetConfig
from supernet import DEFAULT_PATTERNS, Architecture, Preprocessing, Supernet, export
from supernet.errors import ExportError
from supernet.export import (
    FILES,
    check_export_directory,
    largest_logit_difference,
    plain_network,
    subnet_export,
    write_export,
)

CLASS_NAMES = ("five", "six", "seven", "eight", "nine")
UNLIKE_THE_BACKBONES: dict[str, Any] = {
    "interpolation": "bilinear",
    "mean": (0.25,),
    "std": (0.75,),
    "crop_pct": 0.8,
    "crop_mode": "squash",
}
RECORD = {"study": "a study", "val": {"top1": 0.5}}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export on the disk, and what it was made of."""

    directory: Path
    architecture: Architecture
    backbone_state: dict[str, Tensor]
    supernet: Supernet
    subnet: SubnetConfig
    merged: nn.Module
    preprocessing: Preprocessing

    def write(self, directory: Path, **changes: Any) -> None:
        """Export once more."""
        exportable = replace(
            subnet_export(self.supernet, self.subnet),
            network=changes.pop("merged", self.merged),
        )
        arguments = {
            "architecture": self.architecture,
            "preprocessing": self.preprocessing,
            "class_names": CLASS_NAMES,
            "record": RECORD,
        }
        write_export(directory, exportable, **{**arguments, **changes})


def export_of(
    directory: Path,
    architecture: Architecture,
    choose: Callable[[Supernet], SubnetConfig] | None = None,
    patterns: tuple[str, ...] = DEFAULT_PATTERNS,
) -> Exported:
    """A subnet of a filled supernet, exported to `directory`; a random one if not chosen."""
    model = backbone_of(architecture)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    supernet = Supernet(model, space_of(model, architecture, patterns)).eval()
    fill_support_tensors(supernet)
    subnet = subnets_of(supernet.space)[2] if choose is None else choose(supernet)
    exported = Exported(
        directory=directory,
        architecture=architecture,
        backbone_state=state,
        supernet=supernet,
        subnet=subnet,
        merged=supernet.merge(subnet),
        preprocessing=Preprocessing.from_model(model, **UNLIKE_THE_BACKBONES),
    )
    exported.write(directory)
    return exported


def only_one_bias(supernet: Supernet) -> SubnetConfig:
    """Nothing but an E in one layer that has no bias of its own."""
    layers = dict(supernet.space.min_subnet().layers)
    return SubnetConfig({**layers, "blocks.0.attn.qkv": LayerConfig(E="vector")})


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """One for every way in which a merged model differs from timm's default one."""
    root = tmp_path_factory.mktemp("exports")
    no_bias = replace(VIT_WITHOUT_QKV_BIAS, args={**VIT_WITHOUT_QKV_BIAS.args, "proj_bias": False})
    qkv_of_the_first = ("blocks.0.attn.qkv",)
    return {
        "digits": export_of(root / "digits", DIGITS, lambda s: s.space.max_subnet()),
        "added": export_of(root / "added", VIT_WITHOUT_QKV_BIAS, only_one_bias),
        "added to few": export_of(root / "few", no_bias, only_one_bias, qkv_of_the_first),
        "none added": export_of(root / "none", no_bias, lambda s: s.space.min_subnet()),
        "distilled": export_of(root / "distilled", FAMILIES["DeiT, distilled"]),
        "EVA-02": export_of(root / "eva02", FAMILIES["EVA-02"]),
        "BEiT": export_of(root / "beit", FAMILIES["BEiT"]),
        "Swin": export_of(root / "swin", FAMILIES["Swin"]),
    }


ALL = ("digits", "added", "added to few", "none added", "distilled", "EVA-02", "BEiT", "Swin")
each = each_of(ALL, argument="name")

# Loading with timm alone

_ELSEWHERE = """
import json, sys

ours = ("search_spaces", "supernet", "glora_search")


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ours:
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
for name in ours:
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported")

import numpy, timm, torch
from timm.data import resolve_model_data_config

torch.set_num_threads(1)
found, logits = {}, {}
for name, directory in json.load(open("directories.json")).items():
    model = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
    with torch.no_grad():
        logits[name] = model(torch.from_numpy(numpy.load(f"{name}.npy"))).numpy()
    found[name] = {
        "data": resolve_model_data_config(model),
        "label_names": model.pretrained_cfg["label_names"],
        "num_classes": model.num_classes,
        "modules": sorted({type(module).__module__ for module in model.modules()}),
    }
numpy.savez("logits.npz", **logits)
json.dump(found, open("found.json", "w"))
assert not set(ours) & set(sys.modules)
"""


@pytest.fixture(scope="module")
def elsewhere(
    exports: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a process that has timm, and nothing of this project, finds in the directories."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, exported in exports.items():
        np.save(folder / f"{name}.npy", images_for(exported.merged).numpy())
    directories = {name: str(exported.directory) for name, exported in exports.items()}
    (folder / "directories.json").write_text(json.dumps(directories))
    (folder / "load.py").write_text(_ELSEWHERE)
    done = subprocess.run(
        [sys.executable, "load.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logits = np.load(folder / "logits.npz")
    found = json.loads((folder / "found.json").read_text())
    return found, {name: torch.from_numpy(logits[name]) for name in logits.files}


@pytest.mark.slow
@each
def test_timm_alone_loads_it_and_computes_the_same(
    name: str, exports: dict[str, Exported], elsewhere: tuple[Any, dict[str, Tensor]]
) -> None:
    """The logits are those of the merged model, and so of the subnet."""
    exported, logits = exports[name], elsewhere[1][name]
    images = images_for(exported.merged)
    with torch.no_grad():
        torch.testing.assert_close(logits, exported.merged(images), rtol=1e-5, atol=1e-5)
        exported.supernet.set_active_subnet(exported.subnet)
        torch.testing.assert_close(logits, exported.supernet(images), rtol=1e-4, atol=1e-4)
        exported.supernet.set_active_subnet(None)
        assert (logits - exported.supernet(images)).abs().max() > 1e-2 or name == "none added"
    assert logits.shape == (3, 5)
    assert all(m.startswith(("timm.", "torch.")) for m in elsewhere[0][name]["modules"])


@pytest.mark.slow
@each
def test_the_config_carries_preprocessing_and_classes(
    name: str, exports: dict[str, Exported], elsewhere: tuple[dict[str, Any], Any]
) -> None:
    """As the study set it: a user's transform is the one with which the numbers were made."""
    found, preprocessing = elsewhere[0][name], exports[name].preprocessing
    data = {key: found["data"][key] for key in asdict(preprocessing)}
    assert Preprocessing(**data) == preprocessing
    assert found["num_classes"] == 5
    assert found["label_names"] == list(CLASS_NAMES)


@pytest.mark.slow
def test_the_digits_stay_small_and_grey(elsewhere: tuple[dict[str, Any], Any]) -> None:
    """Timm's configuration of this architecture says 3 channels of 224 pixels."""
    data = elsewhere[0]["digits"]["data"]
    assert data["input_size"] == [1, 8, 8]
    assert len(data["mean"]) == len(data["std"]) == 1
    assert data["interpolation"] == "bilinear"


# What else is in the directory


@each
def test_the_directory_holds_four_files_with_timms_names(
    name: str, exports: dict[str, Exported]
) -> None:
    exported = exports[name]
    modes = {path.name: path.stat().st_mode for path in exported.directory.iterdir()}
    assert set(modes) == set(FILES)
    assert len(set(modes.values())) == 1, "safetensors lets only its owner read"
    tensors = load_file(exported.directory / "model.safetensors")
    own = set(exported.architecture.build().state_dict())
    biased = set(exported.architecture.with_added_biases().build().state_dict())
    assert set(tensors) == (biased if name in ("added", "added to few") else own)
    assert all(torch.equal(tensors[n], t) for n, t in exported.merged.state_dict().items())


@each
def test_the_adapter_rebuilds_the_merged_model(name: str, exports: dict[str, Exported]) -> None:
    """Backbone, adapter file and the two formulas: nothing else is needed."""
    exported = exports[name]
    adapter = load_file(exported.directory / "adapter.safetensors")
    merged = load_file(exported.directory / "model.safetensors")
    state = dict(exported.backbone_state)
    for layer in exported.subnet.layers:
        own = {
            key.removeprefix(f"{layer}."): adapter.pop(key).double()
            for key in list(adapter)
            if key.startswith(f"{layer}.")
        }
        bias = state.get(f"{layer}.bias")
        weight, added = rebuilt(
            state[f"{layer}.weight"].double(), None if bias is None else bias.double(), own
        )
        state[f"{layer}.weight"] = weight.float()
        if f"{layer}.bias" in merged:
            state[f"{layer}.bias"] = added.float()
    assert set(adapter) == set(exported.supernet.head_state()), "and the head"
    state |= adapter
    for key, tensor in merged.items():
        torch.testing.assert_close(tensor, state.get(key, torch.zeros_like(tensor)))


@each
def test_the_adapter_holds_the_active_tensors_alone(
    name: str, exports: dict[str, Exported]
) -> None:
    """As many scalars as the search counted, and the head."""
    exported = exports[name]
    adapter = load_file(exported.directory / "adapter.safetensors")
    expected = {
        f"{layer}.{key}": tensor
        for layer, config in exported.subnet.layers.items()
        for key, tensor in exported.supernet.layers[layer].active_tensors(config).items()
    }
    expected |= exported.supernet.head_state()
    assert adapter.keys() == expected.keys()
    assert all(torch.equal(adapter[key], tensor) for key, tensor in expected.items())
    head = sum(tensor.numel() for tensor in exported.supernet.head_state().values())
    counted = exported.supernet.space.n_params(exported.subnet)
    assert sum(tensor.numel() for tensor in adapter.values()) == counted + head


@each
def test_the_record_holds_the_configuration(name: str, exports: dict[str, Exported]) -> None:
    exported = exports[name]
    text = (exported.directory / "subnet.json").read_text()
    assert SubnetConfig.from_json(text) == exported.subnet
    assert json.loads(text).items() >= RECORD.items()


def test_without_class_names_the_config_has_none(
    exports: dict[str, Exported], tmp_path: Path
) -> None:
    exports["digits"].write(tmp_path / "out", class_names=None)
    assert "label_names" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_exporting_changes_nothing_of_what_is_exported(
    exports: dict[str, Exported], tmp_path: Path
) -> None:
    exported = exports["digits"]
    models = (exported.merged, exported.supernet)
    before = [{n: t.clone() for n, t in model.state_dict().items()} for model in models]
    exported.write(tmp_path / "out")
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(model.state_dict()[n], t) for n, t in state.items())


# Directories


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder`, with what the files hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_a_directory_that_is_not_empty_is_refused_untouched(
    exports: dict[str, Exported], tmp_path: Path
) -> None:
    """Also one whose only file is hidden, and a file of that name."""
    for name in ("with-file", "hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "with-file" / "mine.txt").write_text("mine")
    (tmp_path / "hidden" / ".keep").touch()
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    for name in ("with-file", "hidden", "file"):
        with pytest.raises(ExportError, match="not an empty directory; choose another"):
            check_export_directory(tmp_path / name)
        with pytest.raises(ExportError, match="not an empty directory; choose another"):
            exports["digits"].write(tmp_path / name)
    assert snapshot(tmp_path) == before


def test_an_empty_directory_a_new_one_and_a_link_are_fine(
    exports: dict[str, Exported], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("empty", "new/below", "link"):
        exports["digits"].write(tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == set(FILES)
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "new", "link", "target"}


def test_the_working_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is replaced; a shell in it would go on looking into the old one."""
    monkeypatch.chdir(tmp_path)
    for path in (Path(), tmp_path, Path("sub/..")):
        with pytest.raises(ExportError, match="is the working directory; name another one"):
            check_export_directory(path)
    check_export_directory(Path("new"))


# Failures


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space left")]
)
def test_a_failure_in_the_middle_leaves_nothing(
    error: Exception,
    exports: dict[str, Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model is on the disk already when the adapter cannot be written; then it works again."""
    seen: list[set[str]] = []

    def full(tensors: Any, path: Path) -> None:
        seen.append({written.name for written in path.parent.iterdir()})
        raise error

    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(export, "save_file", full)
        for name in ("out", "empty", "new/folders/out", "empty/new/out"):
            with pytest.raises(ExportError, match=r"cannot export to .*[Nn]o space left"):
                exports["digits"].write(tmp_path / name)
    assert seen == [{"model.safetensors", "config.json"}] * 4, "it failed in the middle"
    assert snapshot(tmp_path) == {"empty": None}
    exports["digits"].write(tmp_path / "new" / "folders" / "out")


def test_a_path_below_a_file_is_one_clear_error(
    exports: dict[str, Exported], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ExportError, match="cannot export to"):
        exports["digits"].write(tmp_path / "file" / "out")
    assert snapshot(tmp_path) == before


def test_a_number_that_is_no_json_is_an_error(exports: dict[str, Exported], tmp_path: Path) -> None:
    """A NaN in subnet.json would be read by no other program."""
    with pytest.raises(ExportError, match="JSON"):
        exports["digits"].write(tmp_path / "out", record={"loss": float("nan")})
    assert snapshot(tmp_path) == {}


def test_what_does_not_load_as_it_was_is_not_left(
    exports: dict[str, Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that turns a bit: the export is read back before it gets its name."""
    save = export.save_for_hf

    def with_a_turned_bit(model: nn.Module, directory: str, **how: Any) -> None:
        save(model, directory, **how)
        path = Path(directory) / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 0x40
        path.write_bytes(content)

    monkeypatch.setattr(export, "save_for_hf", with_a_turned_bit)
    with pytest.raises(ExportError, match="does not load as it was"):
        exports["digits"].write(tmp_path / "out")
    assert snapshot(tmp_path) == {}


def test_a_model_of_another_architecture_is_not_exported(exports: dict[str, Exported]) -> None:
    """It would load with random weights in what is missing."""
    exported = exports["digits"]
    deeper = replace(DIGITS, args={**DIGITS.args, "depth": 3})
    with pytest.raises(ExportError, match=r"'blocks\.2\.\S*' is \(16,\) .* absent in the"):
        plain_network(exported.merged, deeper)
    with pytest.raises(ExportError, match=r"is \(16,\) in timm's .* \(24,\) in the merged"):
        plain_network(exports["added"].merged, DIGITS)


# The check before it


def test_the_largest_logit_difference_is_over_all_images() -> None:
    """By hand, over the whole val split; the remainder of the last batch counts."""
    supernet = filled_supernet()
    first, second = supernet.space.max_subnet(), subnets_of(supernet.space)[2]
    merged = supernet.merge(first)
    assert largest_logit_difference(supernet, merged, first, digits()[1]) < 1e-3
    ((images, _),) = list(digits()[1].batches(50))
    supernet.set_active_subnet(second)
    with torch.no_grad():
        differences = (supernet(images) - merged(images)).abs().amax(1)
    by_hand = differences.max().item()
    assert by_hand > 0.1
    for batch_size in (50, 16, 1):
        found = largest_logit_difference(
            supernet, merged, second, digits()[1], batch_size=batch_size
        )
        assert found == pytest.approx(by_hand, abs=1e-4)
    assert supernet.active_subnet == second


def test_the_largest_logit_difference_puts_everything_back() -> None:
    supernet = filled_supernet(drop_path=0.5).train()
    subnet = supernet.space.max_subnet()
    merged = supernet.merge(subnet)
    assert largest_logit_difference(supernet, merged, subnet, digits()[1]) < 1e-3
    assert supernet.active_subnet is None
    assert supernet.training


def test_a_difference_that_is_no_number_passes_no_tolerance() -> None:
    """NaN is neither above nor below; the caller asks whether it is within."""
    supernet = filled_supernet()
    subnet = supernet.space.max_subnet()
    merged: Any = supernet.merge(subnet)
    with torch.no_grad():
        merged.head.bias[0] = float("nan")
    assert not largest_logit_difference(supernet, merged, subnet, digits()[1]) <= float("inf")
