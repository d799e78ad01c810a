"""What the two benchmarks of evaluations share: a filled supernet, a split, and the dense rival."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from measuring import progress
from PIL import Image
from rivals import DenseLayer, check_same_logits, use_rival
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from search_spaces import SearchSpace, SubnetConfig, load_preset
from supernet import Preprocessing, Supernet, TensorSplit, find_layers

CLASSES = 100
DENSE_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """A supernet as training might leave it, and the split on which its subnets are scored."""

    supernet: Supernet
    split: TensorSplit

    @classmethod
    def make(cls, *, model: str, space: str, n_images: int, device: torch.device) -> Case:
        """Random weights, support tensors and images: none of these changes a time."""
        torch.manual_seed(0)
        backbone = timm.create_model(model, num_classes=CLASSES)
        choices = load_preset(space).choices
        supernet = Supernet(backbone, SearchSpace(find_layers(backbone), choices))
        with torch.no_grad():
            for name, parameter in supernet.trainable_parameters():
                if not name.endswith("_up"):
                    parameter.normal_(std=0.02)
        preprocessing = Preprocessing.from_model(backbone)
        split = TensorSplit(
            name="val",
            images=torch.randint(0, 256, (n_images, *preprocessing.input_size), dtype=torch.uint8),
            labels=torch.randint(CLASSES, (n_images,)),
            preprocessing=preprocessing,
            num_classes=CLASSES,
            class_names=None,
            fingerprint="random",
        )
        return cls(supernet=supernet.to(device).eval(), split=split.to(device))

    @property
    def device(self) -> torch.device:
        """Of the supernet."""
        return self.split.device


class DenseLoop:
    """The published evaluation: images decoded from disk for each subnet, adapters in dense form at
    each forward, float32, a look at each batch's result.

    Args:
        case: Of which the supernet is copied and the images are written as files.
        folder: Where the files go.
        workers: Processes of the DataLoader.
    """

    def __init__(self, case: Case, folder: Path, workers: int) -> None:
        self._device, self._supernet = case.device, copy.deepcopy(case.supernet)
        self._supernet.set_active_subnet(case.supernet.space.sample(random.Random(0)))
        images = torch.randn(2, *case.split.preprocessing.input_size, device=case.device)
        check_same_logits(self._supernet, images, DenseLayer)
        use_rival(self._supernet, DenseLayer)
        progress(f"writing {len(case.split)} images")
        self._loader = DataLoader(
            _Files(case.split, folder), batch_size=DENSE_BATCH, num_workers=workers
        )

    @torch.no_grad()
    def __call__(self, subnet: SubnetConfig) -> tuple[float, float]:
        """Loss and top-1."""
        self._supernet.set_active_subnet(subnet)
        losses, right, n = 0.0, 0, 0
        for images, labels in self._loader:
            logits = self._supernet(images.to(self._device))
            there = labels.to(self._device)
            losses += F.cross_entropy(logits, there, reduction="sum").item()
            right += int((logits.argmax(1) == there).sum().item())
            n += len(labels)
        return losses / n, right / n


class _Files(Dataset[tuple[Tensor, int]]):
    """Images that are opened, decoded, resized and normalised one by one."""

    _SIDE = 256

    def __init__(self, split: TensorSplit, folder: Path) -> None:
        self._preprocessing = split.preprocessing
        self._transform = split.preprocessing.transform()
        self._labels = split.labels.tolist()
        self._paths = []
        for k, image in enumerate(split.images.cpu()):
            path = folder / f"{k}.jpg"
            shown = Image.fromarray(image.permute(1, 2, 0).numpy())
            # Noise is what JPEG decodes most slowly; smoothed it takes as long as a photograph.
            small = shown.resize((self._SIDE // 8, self._SIDE // 8))
            small.resize((self._SIDE, self._SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
            self._paths.append(path)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        with Image.open(self._paths[k]) as image:
            pixels = torch.as_tensor(self._transform(image))
        return self._preprocessing.normalise(pixels), self._labels[k]
