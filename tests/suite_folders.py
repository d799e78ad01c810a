"""Folder trees of the suites in their real form: small images of several kinds, lists, mistakes.

Some images are what real data sets hold besides RGB: grey and CMYK JPEGs, PNGs with a palette,
names with spaces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_study import ARGS, write_backbone, write_study

from supernet.data import FEW_SHOT_SETS, VTAB_CLASSES

KINDS = (("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("RGB", "png"))
SIDE = 16
_COLOUR_ARGS = {"img_size": SIDE, "in_chans": 3}


def write_picture(path: Path, label: int, seed: int, kind: str = "RGB") -> Path:
    """An image whose brightness tells its label a little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 128, (SIDE, SIDE, 3))
    pixels = (noise + 128 * (label % 2)).astype(np.uint8)
    Image.fromarray(pixels).convert(kind).save(path)
    return path


def write_base_study(folder: Path) -> Path:
    """The study from which suites take all but the data: a tiny transformer with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_backbone(folder / "backbone.safetensors", **_COLOUR_ARGS)
    return write_study(
        folder,
        backbone={"args": {**ARGS, **_COLOUR_ARGS}},
        supernet={"threads": 1},
        search={"max_params": 2000},
    )


def write_list(folder: Path, name: str, images: str, labels: Sequence[int], seed: int) -> Path:
    """A list and its images, of all KINDS in turn, every third with a space in its name.

    Args:
        folder: Paths of the list are relative to it.
        name: Of the list, relative to `folder`.
        images: Folder of the images, relative to `folder`.
        labels: One an image.
        seed: Of the pixels.
    """
    lines = []
    for number, label in enumerate(labels):
        kind, suffix = KINDS[number % len(KINDS)]
        file = f"{images}/{'img ' if number % 3 == 0 else 'img_'}{seed}_{number}.{suffix}"
        write_picture(folder / file, label, 1000 * seed + number, kind)
        lines.append(f"{file} {label}\n")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def write_vtab(root: Path, tasks: Sequence[str], *, n_test: int = 20) -> Path:
    """Tasks of VTAB-1k with 12 training and 10 validation images each."""
    for number, task in enumerate(tasks):
        for part, (name, n) in enumerate((("train800", 12), ("val200", 10), ("test", n_test))):
            labels = [i % min(4, VTAB_CLASSES[task]) for i in range(n)]
            write_list(root / task, f"{name}.txt", f"images/{name}", labels, 10 * number + part)
    return root


def write_few_shot(
    root: Path, datasets: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> Path:
    """Few-shot data sets whose first two classes have images."""
    for number, dataset in enumerate(datasets):
        folder = root / (FEW_SHOT_SETS[dataset].other_folders[0] if number % 2 else dataset)
        labels = {
            f"train_meta.list.num_shot_{n}.seed_{s}": [0, 1] * n for n in shots for s in seeds
        }
        labels |= {"val_meta.list": [0, 1] * 4, "test_meta.list": [0, 1] * 8}
        for part, (name, each) in enumerate(labels.items()):
            path = write_list(folder / "images", name, f"p{part}", each, 100 * number + part)
            (folder / "annotations").mkdir(exist_ok=True)
            path.rename(folder / "annotations" / name)
    return root


def write_imagenet(root: Path, seeds: Sequence[int] = (0, 1)) -> Path:
    """ImageNet's 1,000 classes with an image each, its test images, and ImageNet-A's 200 folders.

    The images are links to few files: what counts is that they are there and decode.
    """
    pictures = [write_picture(root / f"{n}.png", n, n) for n in range(2)]
    imagenet = root / "imagenet"
    (imagenet / "annotations").mkdir(parents=True)
    wnids = [f"n{label:08d}" for label in range(1000)]

    def link(path: Path, label: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(pictures[label % 2], path)

    lists: dict[str, list[str]] = {}
    for label, wnid in enumerate(wnids):
        for name in ("x", "v"):
            link(imagenet / "train" / wnid / f"{name}.png", label)
        for seed in seeds:
            of_seed = lists.setdefault(f"train_meta.list.num_shot_16.seed_{seed}", [])
            of_seed.append(f"{wnid}/x.png {label}")
        if label < 20:
            link(imagenet / "val" / f"ILSVRC_{label}.png", label)
            lists.setdefault("val_meta.list", []).append(f"ILSVRC_{label}.png {label}")
            lists.setdefault("unofficial_val_list_4_shot16seed0", []).append(
                f"{wnid}/v.png {label}"
            )
        if label % 5 == 0:
            link(root / "imagenet-adversarial" / "imagenet-a" / wnid / "y.png", label)
    for name, lines in lists.items():
        (imagenet / "annotations" / name).write_text("\n".join(lines) + "\n")
    return root
