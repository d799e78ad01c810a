"""From a study file to what a search works with: backbone, data, search space.

The first stage of launch, resume and export. It checks what it can before anything slow begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from glora_search.cluster.artifacts import Artifacts
from glora_search.stages.progress import Progress
from glora_search.stages.sources import make_source
from glora_search.stages.trained_once import cached_path, train_once
from glora_search.study.data_sections import Data
from glora_search.study.errors import FingerprintError
from glora_search.study.network_sections import AUTO, PretrainSection
from glora_search.study.study_file import StudyFile
from search_spaces import ParamLimits, SearchSpace
from supernet import (
    DEFAULT_PATTERNS,
    Architecture,
    Checkpointing,
    EpochEnd,
    Preprocessing,
    Recipe,
    Split,
    find_layers,
    train_network,
)
from supernet.backbones import load_checkpoint, load_pretrained
from supernet.data import (
    load_search_splits,
    load_split,
    load_test_split,
    missing_classes,
    n_held_out,
)
from supernet.fingerprints import backbone_fingerprint
from supernet.methods import VLoRA
from supernet.recipes import identity_of

PATHS_A_CHOICE: Final = 1800
"""How often `supernet.epochs = "auto"` trains each choice of a gene. On the offline suite winners
are better than with a third of it, and more has not been tried; see docs/science.md. The published
recipe, 500 epochs of 800 images in batches of 64, trains each of five choices 1,300 times."""


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
        artifacts: Where what is made of it is kept besides.
    """

    file: StudyFile
    architecture: Architecture
    backbone: nn.Module
    preprocessing: Preprocessing
    train: Split
    val: Split
    space: SearchSpace
    fingerprints: dict[str, str]
    artifacts: Artifacts

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


def prepare(
    file: StudyFile, progress: Progress, *, artifacts: Artifacts | None = None
) -> Materials:
    """Load the backbone and the data, and lay out the search space.

    Args:
        file: The study.
        progress: Where to report to.
        artifacts: None for those of the study.

    Raises:
        BackboneError: Weights are missing or of another model, or the patterns match no layer.
        DataError: A split is missing or damaged.
        InfeasibleLimitError: No subnet meets the study's parameter limits.
    """
    artifacts = artifacts or Artifacts(url=file.cluster.artifacts)
    source = make_source(file.data)
    classes = source.label_space().num_classes
    architecture = Architecture(file.backbone.model, classes, file.backbone.args)
    # An untrained one tells quickly whether layers and limits are possible at all.
    space = _space(file, architecture.build(), architecture)
    space.check_limits(param_limits(file))
    backbone = _backbone(file, architecture, artifacts, progress)
    preprocessing = Preprocessing.from_model(backbone, **file.data.preprocessing_overrides())
    with progress.bar("decoding images", 1) as bar:
        train, val = load_search_splits(
            source,
            preprocessing,
            cache_bytes=int(file.data.cache_gb * 2**30),
            decode_workers=file.data.decode_workers,
            on_progress=lambda name, done, n: bar.update(done, name, total=n),
        )
    if file.search.holdout:
        n_held_out(len(val), file.search.holdout)  # raises now rather than after the training
    missing = missing_classes(train, val)
    if missing:
        progress.note(missing_note("validation", missing))
    return Materials(
        file=with_epochs(file, space, len(train)),
        architecture=architecture,
        backbone=backbone,
        preprocessing=preprocessing,
        train=train,
        val=val,
        space=space,
        fingerprints={
            "backbone": backbone_fingerprint(backbone),
            "train": train.fingerprint,
            "val": val.fingerprint,
        },
        artifacts=artifacts,
    )


def with_epochs(file: StudyFile, space: SearchSpace, n_train: int) -> StudyFile:
    """The study with a number of epochs for its supernet, where it says `auto`: so many that each
    choice of the gene with the most choices is trained PATHS_A_CHOICE times.

    Args:
        file: The study.
        space: Its search space.
        n_train: Images of its training split.
    """
    section = file.supernet
    if section.epochs != AUTO:
        return file
    workers = max(1, section.workers)
    steps = math.ceil(n_train / (workers * section.batch_size))
    choices = max(len(gene.choices) for gene in space.genes)
    paths = PATHS_A_CHOICE * choices
    paths_a_step = workers * (section.sandwich or section.paths_per_step)
    epochs = math.ceil(paths / (steps * paths_a_step))
    return file.model_copy(update={"supernet": section.model_copy(update={"epochs": epochs})})


def preprocessing_identity(data: Data) -> dict[str, str]:
    """What the identity of a training needs of the preprocessing beside the fingerprints of its
    images, which do not see how pixels are normalised, nor of a streamed split how they are cut:
    the keys that are not the model's own.
    """
    changed = data.preprocessing_overrides()
    return {"preprocessing": json.dumps(changed, sort_keys=True)} if changed else {}


def missing_note(split: str, classes: Sequence[str], most: int = 10) -> str:
    """One line that warns of classes of the training split that another split lacks."""
    shown = ", ".join(classes[:most]) + (", ..." if len(classes) > most else "")
    count = "1 class" if len(classes) == 1 else f"{len(classes)} classes"
    return f"warning: the {split} split has no image of {count} of the training split: {shown}"


def param_limits(file: StudyFile) -> ParamLimits:
    """The study's limits on a subnet's parameters."""
    return ParamLimits(file.search.min_params, file.search.max_params)


def device_of(file: StudyFile) -> torch.device:
    """Where the supernet trains: `auto` is the first GPU, or the CPU."""
    wanted = file.supernet.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def use_threads(file: StudyFile) -> None:
    """Let this process compute with the study's number of threads, where it names one."""
    if file.supernet.threads is not None:
        torch.set_num_threads(file.supernet.threads)


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


def _backbone(
    file: StudyFile, architecture: Architecture, artifacts: Artifacts, progress: Progress
) -> nn.Module:
    section, drop_path, seed = file.backbone, file.supernet.drop_path, file.study.seed
    if section.pretrained:
        progress.note(f"loading the pretrained weights of {section.model}")
        return load_pretrained(architecture, drop_path=drop_path, seed=seed)
    if section.checkpoint is not None:
        return load_checkpoint(architecture, section.checkpoint, drop_path=drop_path, seed=seed)
    assert section.pretrain is not None, "the study file gives one origin of the weights"
    path = _pretrain(file, architecture, section.pretrain, artifacts, progress)
    return load_checkpoint(architecture, path, drop_path=drop_path, seed=seed)


def _pretrain(
    file: StudyFile,
    architecture: Architecture,
    section: PretrainSection,
    artifacts: Artifacts,
    progress: Progress,
) -> Path:
    """Train the backbone, unless that has been done; the file with its weights, those of a plain
    network.
    """
    source = make_source(section.data)
    architecture = Architecture(
        architecture.model, source.label_space().num_classes, architecture.args
    )
    device, seed = device_of(file), file.study.seed
    model = architecture.build(seed=seed).to(device)
    preprocessing = Preprocessing.from_model(model, **section.data.preprocessing_overrides())
    train = load_split(
        source,
        "train",
        preprocessing,
        cache_bytes=int(section.data.cache_gb * 2**30),
        decode_workers=section.data.decode_workers,
    )
    shrunk = VLoRA().adapt(model, seed=seed).to(device) if section.method == "vlora" else None
    identity = {
        "architecture": repr(architecture),
        "train": train.fingerprint,
        "recipe": identity_of(Recipe(**section.recipe_fields())),
        "seed": str(seed),
        **preprocessing_identity(section.data),
    }
    if section.method != "full":
        identity["method"] = section.method
    path = cached_path(file.study.directory / "backbones", identity)

    def train_all(checkpointing: Checkpointing, on_epoch: Callable[[EpochEnd], None]) -> None:
        use_threads(file)
        train_network(
            shrunk or model,
            train.to(device),
            Recipe(**section.recipe_fields()),
            seed=seed,
            checkpointing=checkpointing,
            on_epoch=on_epoch,
        )

    train_once(
        path,
        identity,
        train_all,
        lambda: (shrunk.merge() if shrunk else model).state_dict(),
        what="pretraining the backbone",
        epochs=section.epochs,
        every_s=file.supernet.checkpoint_every_s,
        progress=progress,
        artifacts=artifacts,
    )
    return path
