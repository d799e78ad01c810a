"""From a study file to what a search works with: backbone, data, search space, trained supernet.

The stages of the way from a study file to an export that launch, resume and export share. Each
stage checks what it can before anything slow begins; what takes long is cached under the study's
directory by the fingerprint of what it is made of, so a second study over the same supernet does
not train it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glora_search.errors import FingerprintError
from glora_search.progress import Progress
from glora_search.study_file import (
    DigitsData,
    FolderData,
    PretrainSection,
    StudyFile,
    TimmData,
    VTABData,
)
from search_spaces import ParamLimits, SearchSpace
from supernet import (
    DEFAULT_PATTERNS,
    Architecture,
    Checkpointing,
    EpochEnd,
    Preprocessing,
    Recipe,
    Split,
    Supernet,
    find_layers,
    train_backbone,
    train_supernet,
)
from supernet.backbones import head_names, load_pretrained
from supernet.backbones import load_checkpoint as load_backbone_checkpoint
from supernet.checkpoints import load_checkpoint, save_checkpoint
from supernet.data import (
    DigitsSource,
    FolderSource,
    Source,
    TimmSource,
    VTABSource,
    load_search_splits,
    load_split,
    load_test_split,
)
from supernet.fingerprints import fingerprint

_log = logging.getLogger(__name__)

DataSection = DigitsData | VTABData | FolderData | TimmData


@dataclass(frozen=True, eq=False, kw_only=True)
class Materials:
    """What a study is made of, before its supernet has trained.

    Args:
        file: The resolved study file.
        architecture: Of the backbone, with the data's number of classes.
        backbone: With its weights and a new head, on the CPU.
        preprocessing: Of the backbone, as the file overrides it.
        train: The split on which the supernet trains.
        val: The split on which subnets are scored.
        space: The search space over the backbone's layers.
        fingerprints: SHA-256 of `backbone`, `train` and `val`.
    """

    file: StudyFile
    architecture: Architecture
    backbone: nn.Module
    preprocessing: Preprocessing
    train: Split
    val: Split
    space: SearchSpace
    fingerprints: dict[str, str]

    def test_split(self, progress: Progress) -> Split:
        """The test split: for what is exported or reported, and nothing else."""
        with progress.bar("decoding test images", 1) as bar:
            return load_test_split(
                make_source(self.file.data),
                self.preprocessing,
                cache_bytes=int(self.file.data.cache_gb * 2**30),
                decode_workers=self.file.data.decode_workers,
                on_progress=lambda _, done, n: bar.update(done, total=n),
            )


def prepare(file: StudyFile, progress: Progress) -> Materials:
    """Load the backbone and the data, and lay out the search space.

    Raises:
        BackboneError: Weights are missing or of another model, or the patterns match no layer.
        DataError: A split is missing or damaged.
        InfeasibleLimitError: No subnet meets the study's parameter limits.
    """
    source = make_source(file.data)
    classes = source.label_space().num_classes
    architecture = Architecture(file.backbone.model, classes, file.backbone.args)
    # An untrained one tells quickly whether layers and limits are possible at all.
    space = _space(file, architecture.build(), architecture)
    space.check_limits(param_limits(file))
    backbone = _backbone(file, architecture, progress)
    preprocessing = Preprocessing.from_model(backbone, **file.data.preprocessing_overrides())
    with progress.bar("decoding images", 1) as bar:
        train, val = load_search_splits(
            source,
            preprocessing,
            cache_bytes=int(file.data.cache_gb * 2**30),
            decode_workers=file.data.decode_workers,
            on_progress=lambda name, done, n: bar.update(done, name, total=n),
        )
    return Materials(
        file=file,
        architecture=architecture,
        backbone=backbone,
        preprocessing=preprocessing,
        train=train,
        val=val,
        space=space,
        fingerprints={
            "backbone": _backbone_fingerprint(backbone),
            "train": train.fingerprint,
            "val": val.fingerprint,
        },
    )


def make_source(data: DataSection) -> Source:
    """The data source that a section [data] describes.

    Raises:
        DataError: Its root or its task is not there.
    """
    match data:
        case DigitsData():
            n_train = None if data.n_train == "all" else data.n_train
            return DigitsSource(tuple(data.classes), n_train, data.n_val, data.seed)
        case VTABData():
            return VTABSource(
                data.root, data.task, data.train, data.val, data.test, num_classes=data.num_classes
            )
        case FolderData():
            return FolderSource(
                data.root, data.train, data.val, data.test, data.val_fraction, data.seed
            )
        case TimmData():
            given = data.model_dump(include=set(TimmData.model_fields) - set(_SHARED_DATA_KEYS))
            return TimmSource(**given)


_SHARED_DATA_KEYS = (
    *("source", "interpolation", "mean", "std", "crop_pct", "crop_mode"),
    *("cache_gb", "decode_workers"),
)


def param_limits(file: StudyFile) -> ParamLimits:
    """The study's limits on a subnet's parameters."""
    return ParamLimits(file.search.min_params, file.search.max_params)


def device_of(file: StudyFile) -> torch.device:
    """Where the supernet trains: `auto` is the first GPU, or the CPU."""
    wanted = file.supernet.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def train_or_load_supernet(materials: Materials, progress: Progress) -> Supernet:
    """The trained supernet on the study's device: from its file, from a checkpoint on, or from
    scratch.

    Raises:
        CheckpointError: The file that the study names is of another backbone, space or storage.
        TrainingDivergedError: The loss stopped being finite.
    """
    file = materials.file
    if file.supernet.threads is not None:
        torch.set_num_threads(file.supernet.threads)
    supernet = Supernet(
        materials.backbone,
        materials.space,
        storage=file.supernet.storage,
        seed=file.study.seed,
    )
    supernet.to(device_of(file))
    network = {
        "backbone": materials.fingerprints["backbone"],
        "space": materials.space.to_json(),
        "storage": file.supernet.storage,
    }
    if file.supernet.checkpoint is not None:
        state, _ = load_checkpoint(file.supernet.checkpoint, expected=network)
        supernet.load_trainable_state(state)
        return supernet
    recipe = Recipe(**file.supernet.recipe_fields())
    identity = {
        **network,
        "train": materials.fingerprints["train"],
        "recipe": json.dumps(file.supernet.recipe_fields(), sort_keys=True),
        "drop_path": str(file.supernet.drop_path),
        "seed": str(file.study.seed),
    }
    path = supernet_path(file, identity)
    if path.exists():
        state, _ = load_checkpoint(path, expected=identity)
        supernet.load_trainable_state(state)
        progress.note(f"reusing the supernet {path}")
        return supernet
    unfinished = path.with_suffix(".training.safetensors")
    with progress.bar("training the supernet", recipe.epochs) as bar:
        train_supernet(
            supernet,
            materials.train.to(device_of(file)),
            recipe,
            seed=file.study.seed,
            checkpointing=Checkpointing(
                path=unfinished, every_s=file.supernet.checkpoint_every_s, identity=identity
            ),
            on_epoch=lambda end: bar.update(end.epoch, f"loss {end.loss:.3f}"),
        )
    save_checkpoint(path, supernet.trainable_state(), identity)
    unfinished.unlink(missing_ok=True)
    return supernet


def supernet_path(file: StudyFile, identity: Mapping[str, str]) -> Path:
    """Where the supernet of that identity is kept."""
    return file.study.directory / "supernets" / f"{_key(identity)}.safetensors"


def supernet_fingerprint(supernet: Supernet) -> str:
    """SHA-256 of what training has made: support tensors and head."""
    return fingerprint(supernet.trainable_state())


def check_fingerprints(recorded: Mapping[str, str], found: Mapping[str, str], study: str) -> None:
    """Raise FingerprintError naming everything that is not what the study was started with."""
    changed = [name for name, value in found.items() if recorded.get(name, value) != value]
    if changed:
        names = {"train": "the train split", "val": "the val split"}
        told = ", ".join(names.get(name, f"the {name}") for name in changed)
        raise FingerprintError(
            f"study {study!r} cannot go on: {told} changed since it was launched; "
            f"restore what it was, or launch a new study"
        )


def _space(file: StudyFile, model: nn.Module, architecture: Architecture) -> SearchSpace:
    patterns = file.space.patterns or DEFAULT_PATTERNS
    layers = find_layers(model, patterns, architecture=architecture)
    return SearchSpace(layers, file.space.resolved_choices())


def _backbone(file: StudyFile, architecture: Architecture, progress: Progress) -> nn.Module:
    section, drop_path, seed = file.backbone, file.supernet.drop_path, file.study.seed
    if section.pretrained:
        progress.note(f"loading the pretrained weights of {section.model}")
        return load_pretrained(architecture, drop_path=drop_path, seed=seed)
    if section.checkpoint is not None:
        return load_backbone_checkpoint(
            architecture, section.checkpoint, drop_path=drop_path, seed=seed
        )
    assert section.pretrain is not None, "the study file gives one origin of the weights"
    path = _pretrain(file, architecture, section.pretrain, progress)
    return load_backbone_checkpoint(architecture, path, drop_path=drop_path, seed=seed)


def _pretrain(
    file: StudyFile, architecture: Architecture, section: PretrainSection, progress: Progress
) -> Path:
    """Train the backbone on other data, unless that has been done; the file with its weights."""
    source = make_source(section.data)
    architecture = Architecture(
        architecture.model, source.label_space().num_classes, architecture.args
    )
    model = architecture.build(seed=file.study.seed)
    preprocessing = Preprocessing.from_model(model, **section.data.preprocessing_overrides())
    train = load_split(source, "train", preprocessing)
    identity = {
        "architecture": repr(architecture),
        "train": train.fingerprint,
        "recipe": json.dumps(section.recipe_fields(), sort_keys=True),
        "seed": str(file.study.seed),
    }
    path = file.study.directory / "backbones" / f"{_key(identity)}.safetensors"
    if path.exists():
        return path
    unfinished = path.with_suffix(".training.safetensors")
    device = device_of(file)
    with progress.bar("pretraining the backbone", section.epochs) as bar:
        train_backbone(
            model.to(device),
            train.to(device),
            Recipe(**section.recipe_fields()),
            seed=file.study.seed,
            checkpointing=Checkpointing(
                path=unfinished, every_s=file.supernet.checkpoint_every_s, identity=identity
            ),
            on_epoch=partial(_show_epoch, bar),
        )
    save_checkpoint(path, model.state_dict(), identity)
    unfinished.unlink(missing_ok=True)
    return path


def _show_epoch(bar: Any, end: EpochEnd) -> None:
    bar.update(end.epoch, f"loss {end.loss:.3f}")


def _backbone_fingerprint(backbone: nn.Module) -> str:
    """Of the weights that do not train: all but the new head, which is a function of the seed."""
    heads = tuple(f"{name}." for name in head_names(backbone))
    state = backbone.state_dict()
    return fingerprint({name: t for name, t in state.items() if not name.startswith(heads)})


def _key(identity: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
