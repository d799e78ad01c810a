"""Export: a merged network as timm writes it, and beside it what was trained and what is known of
it.

What is exported is an `Exportable`: a subnet is one by `subnet_export`, the average of several by
`supernet.average_export`. Another thing to export is one more function that returns one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from search_spaces import SubnetConfig
from supernet.backbones import Architecture
from supernet.data import Preprocessing, Split
from supernet.errors import ExportError
from supernet.formats import Besides, ModelFacts, Written, export_files, write_formats
from supernet.network import Supernet

FILES: Final = ("model.safetensors", "config.json", "adapter.safetensors", "subnet.json")


@dataclass(frozen=True, eq=False, kw_only=True)
class Exportable:
    """A plain network that is to be exported, and what is known of where it comes from.

    Args:
        network: Merged; its state-dict names are the backbone's.
        adapter: What was trained for it alone, by name: it goes into adapter.safetensors.
        origin: What it was made of, as JSON: it goes into subnet.json.
        logit_difference: The largest absolute difference on a split between its logits and those of
            the network before the merge.
    """

    network: nn.Module
    adapter: Mapping[str, torch.Tensor]
    origin: Mapping[str, Any]
    logit_difference: Callable[[Split], float]


def subnet_export(supernet: Supernet, subnet: SubnetConfig) -> Exportable:
    """One subnet of a trained supernet."""
    merged = supernet.merge(subnet)
    return Exportable(
        network=merged,
        adapter=adapter_tensors(supernet, subnet),
        origin=json.loads(subnet.to_json()),
        logit_difference=lambda split: largest_logit_difference(supernet, merged, subnet, split),
    )


def check_export_directory(directory: Path) -> None:
    """Raise ExportError unless `directory` can be written as a new export."""
    if directory.resolve() == Path.cwd():  # a shell would stay in the replaced one
        raise ExportError(f"{str(directory)!r} is the working directory; name another one")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(
            f"{str(directory)!r} is not an empty directory; choose another, or remove it first"
        )


def largest_logit_difference(
    supernet: Supernet,
    model: nn.Module,
    subnet: SubnetConfig,
    split: Split,
    *,
    batch_size: int = 64,
) -> float:
    """The largest absolute difference between the logits of a subnet, unmerged, and of a plain
    model.

    Args:
        supernet: Runs the subnet with its support tensors; the active subnet is put back
            afterwards.
        model: The merged model, on the supernet's device.
        subnet: The configuration.
        split: Images on which to compare, all of them.
        batch_size: Images a forward.
    """
    active, training = supernet.active_subnet, supernet.training
    supernet.set_active_subnet(subnet)
    supernet.eval()
    try:
        return logit_difference(supernet, model, split, batch_size=batch_size)
    finally:
        supernet.set_active_subnet(active)
        supernet.train(training)


@torch.inference_mode()
def logit_difference(
    first: nn.Module, second: nn.Module, split: Split, *, batch_size: int = 64
) -> float:
    """The largest absolute difference between the logits of two networks on all images of a split;
    NaN where there is one that is no number.
    """
    device = next(second.parameters()).device
    largest = 0.0
    for images, _ in split.batches(batch_size):
        images = images.to(device)
        difference = (first(images) - second(images)).abs().max().item()
        if not difference <= float("inf"):
            return float("nan")
        largest = max(largest, difference)
    return largest


def plain_network(merged: nn.Module, architecture: Architecture) -> nn.Module:
    """The merged weights in a network that timm has built: what an export holds.

    Built with added biases where C or E gave a layer one that the architecture has not by default;
    timm adds them to all layers of a kind, so those that no subnet may change get a zero.

    Raises:
        ExportError: timm cannot build a network with these state-dict names and shapes.
    """
    state = merged.state_dict()
    for candidate in (architecture, architecture.with_added_biases()):
        model: nn.Module = candidate.build()
        own = model.state_dict()
        added = {
            f"{name}.bias": torch.zeros_like(module.bias)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and f"{name}.bias" in own.keys() - state.keys()
        }
        filled = {**added, **state}
        if _shapes(own) == _shapes(filled) and (not added or candidate != architecture):
            model.load_state_dict(filled)
            return model.eval()
    theirs = _shapes(architecture.build().state_dict())
    mine = _shapes(state)
    foreign = min(name for name in mine | theirs if mine.get(name) != theirs.get(name))
    raise ExportError(
        f"{foreign!r} is {theirs.get(foreign, 'absent')} in timm's {architecture.model!r}, and "
        f"{mine.get(foreign, 'absent')} in the merged model: it is of another architecture"
    )


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def write_export(
    directory: Path,
    exportable: Exportable,
    *,
    architecture: Architecture,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    record: Mapping[str, Any],
    besides: Besides | None = None,
) -> dict[str, Written]:
    """Write `directory` whole or not at all: model, timm's config, adapter, the record, and the
    model in further formats.

    Args:
        directory: New or empty.
        exportable: What to write.
        architecture: Of the backbone.
        preprocessing: Goes into timm's config, so that `resolve_model_data_config` finds it.
        class_names: Go into timm's config, where they are known.
        record: What else to say in subnet.json; must be JSON.
        besides: Further formats to write; None for none.

    Returns:
        What is known of each further format, by its name.

    Raises:
        ExportError: The directory is not empty, cannot be written, or what was written does not
            load as the model it should be.
    """
    check_export_directory(directory)
    directory = directory.resolve()
    made = [folder for folder in directory.parents if not folder.exists()]
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        model = plain_network(exportable.network, architecture)
        save_for_hf(
            model,
            str(temporary),
            model_config={"label_names": list(class_names)} if class_names else None,
            safe_serialization=True,
            data_config={
                "input_size": preprocessing.input_size,
                "interpolation": preprocessing.interpolation,
                "mean": preprocessing.mean,
                "std": preprocessing.std,
                "crop_pct": preprocessing.crop_pct,
                "crop_mode": preprocessing.crop_mode,
            },
        )
        save_file(dict(exportable.adapter), temporary / "adapter.safetensors")
        facts = ModelFacts(
            architecture=architecture.model, preprocessing=preprocessing, class_names=class_names
        )
        written = write_formats(temporary, model, facts, record, besides) if besides else {}
        document = {
            **exportable.origin,
            **record,
            "formats": {name: asdict(one) for name, one in written.items()},
        }
        text = json.dumps(document, indent=2, allow_nan=False)
        (temporary / "subnet.json").write_text(f"{text}\n")
        for name in export_files(FILES, written):  # safetensors lets only its owner read
            shutil.copymode(temporary / "subnet.json", temporary / name)
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())  # the study will be recorded as exported
        _check_reloads(temporary, model)
        if directory.exists():
            directory.rmdir()  # empty: it was checked
        temporary.replace(directory)
        return written
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"cannot export to {str(directory)!r}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # it is not empty: the export, or somebody else's, is in it
            for folder in made:
                folder.rmdir()


def adapter_tensors(supernet: Supernet, subnet: SubnetConfig) -> dict[str, torch.Tensor]:
    """Only what was trained for this subnet: active support tensors, sliced to their ranks, and the
    head.

    Names are `<layer>.<support>_down`, `<layer>.<support>_up`, `<layer>.<support>` and the head's
    own.
    """
    tensors = {
        f"{name}.{key}": tensor
        for name, layer in supernet.layers.items()
        for key, tensor in layer.active_tensors(subnet.layers[name]).items()
    }
    tensors |= supernet.head_state()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _check_reloads(directory: Path, model: nn.Module) -> None:
    """What stands on the disk must load into the same tensors, by timm and nothing else."""
    loaded = timm.create_model(f"local-dir:{directory}", pretrained=True).state_dict()
    expected = model.state_dict()
    if loaded.keys() != expected.keys() or not all(
        torch.equal(loaded[name], tensor) for name, tensor in expected.items()
    ):
        raise ExportError(f"what was written to {str(directory)!r} does not load as it was")
