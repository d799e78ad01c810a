"""Domain generalisation: train on a few images of each ImageNet class, test on another domain.

The domains are ImageNetV2 (B. Recht et al., 2019), ImageNet-Sketch (H. Wang et al., 2019),
ImageNet-A and ImageNet-R (D. Hendrycks et al., 2021 both). The folders are those of NOAH, see
`few_shot`, below which K. Zhou's CoOp keeps each domain as it is distributed:

    ROOT/imagenet/annotations/           lists of training and validation images, as in `few_shot`
    ROOT/imagenet/train/<wnid>/          the images of both
    ROOT/imagenet/val/                   ILSVRC's validation images: the test split of ImageNet
    ROOT/imagenetv2/imagenetv2-matched-frequency-format-val/<0..999>/
    ROOT/imagenet-sketch/images/<wnid>/
    ROOT/imagenet-adversarial/imagenet-a/<wnid>/
    ROOT/imagenet-rendition/imagenet-r/<wnid>/

A label is a position in the 1,000 classes. Which WordNet id has which label is read from the
training list: its paths start with the id. In NOAH's lists of the domains each folder has that same
label; these lists name every image of a domain, so the folders are read in their place.

ImageNet-A and -R have 200 of the classes. Their authors compare the logits of these alone. NOAH's
evaluation compares all 1,000, which gives lower figures: say which, when you report them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from supernet.data.examples import Examples, LabelSpace, check_split_name, unknown_name
from supernet.data.few_shot import train_list
from supernet.data.files import FileImages, folder_below, images_below, stays_below, visible
from supernet.data.lists import listed_examples, read_list
from supernet.errors import DataError

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Domain:
    """Test images in class folders.

    Args:
        folder: Holds the class folders, below the data's root.
        num_classes: How many there are.
        numbered: They are named by label, else by WordNet id.
    """

    folder: str
    num_classes: int = IMAGENET_CLASSES
    numbered: bool = False


DOMAINS = MappingProxyType(
    {
        "imagenet": None,
        "imagenetv2": Domain("imagenetv2/imagenetv2-matched-frequency-format-val", numbered=True),
        "imagenet-sketch": Domain("imagenet-sketch/images"),
        "imagenet-a": Domain("imagenet-adversarial/imagenet-a", 200),
        "imagenet-r": Domain("imagenet-rendition/imagenet-r", 200),
    }
)
"""What can be tested on; None for ImageNet itself, which has a list."""


@dataclass(frozen=True)
class DomainSource:
    """ImageNet with a few training images of each class, and the test images of one domain.

    Args:
        root: The folder that holds ImageNet and the domains.
        domain: One of `DOMAINS`.
        shots: Training images of each class.
        seed: Of the list of the training images.
        val: The list of the validation images, in `imagenet/annotations`. The default is the one
            that NOAH searches with. It has no image of the 16-shot list of seed 0; with those of
            seeds 1 and 2 it shares some.
        mask_classes: Compare only the logits of the classes that the domain has.

    Raises:
        DataError: An unknown domain, or a list outside of its folder.
    """

    root: str | Path
    domain: str
    shots: int = 16
    seed: int = 0
    val: str = "unofficial_val_list_4_shot16seed0"
    mask_classes: bool = True

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise DataError(unknown_name("domain", self.domain, DOMAINS))
        if not stays_below(self.val):
            raise DataError(f"val is a list in imagenet/annotations; got {self.val!r}")

    def label_space(self) -> LabelSpace:
        """The 1,000 classes, named by their WordNet ids, in the order of the training list.

        Raises:
            DataError: The training list is not there or malformed, or its folders and labels are
                not the 1,000 classes.
        """
        imagenet = folder_below(self.root, "imagenet")
        name = train_list(imagenet, self.shots, self.seed)
        label_of: dict[str, int] = {}
        for file, label, line in zip(*read_list(imagenet / name, name), strict=True):
            where = f"{name}, line {line}: {file}"
            wnid = file.partition("/")[0]
            if not 0 <= label < IMAGENET_CLASSES:
                raise DataError(f"{where}: label {label} is not a class; accepted are 0 to 999")
            if label_of.setdefault(wnid, label) != label:
                raise DataError(f"{where}: {wnid} has label {label_of[wnid]} before; got {label}")
        names = tuple(sorted(label_of, key=label_of.__getitem__))
        if [label_of[wnid] for wnid in names] != list(range(IMAGENET_CLASSES)):
            raise DataError(
                f"{name} must name each of the {IMAGENET_CLASSES} classes with a label of its own; "
                f"got {len(names)} folders with {len(set(label_of.values()))} labels"
            )
        return LabelSpace(IMAGENET_CLASSES, names)

    def examples(self, split: str) -> Examples:
        """The images of a list in its order, those of a domain sorted by path.

        Raises:
            DataError: An unknown split; a folder, list or image that is not there; a malformed
                line; a wrong label; an empty list or class folder; more or fewer class folders
                than the domain has. Names the file.
        """
        check_split_name(split)
        imagenet = folder_below(self.root, "imagenet")
        space = self.label_space()
        if split == "train":
            name = train_list(imagenet, self.shots, self.seed)
            return listed_examples(imagenet / name, name, imagenet / "train", space)
        if split == "val":
            name = f"annotations/{self.val}"
            return listed_examples(imagenet / name, name, imagenet / "train", space)
        domain = DOMAINS[self.domain]
        if domain is None:
            name = "annotations/val_meta.list"
            return listed_examples(imagenet / name, name, imagenet / "val", space)
        return self._domain_examples(domain, space)

    def _domain_examples(self, domain: Domain, space: LabelSpace) -> Examples:
        root = Path(self.root)
        folder = root / domain.folder
        if not folder.is_dir():
            raise DataError(f"{self.domain} is not there: no folder {folder}")
        assert space.class_names is not None
        if domain.numbered:
            label_of = {str(label): label for label in range(space.num_classes)}
        else:
            label_of = {wnid: label for label, wnid in enumerate(space.class_names)}
        found = [path for path in visible(folder) if path.is_dir()]
        unknown = [path.name for path in found if path.name not in label_of]
        if unknown or len(found) != domain.num_classes:
            raise DataError(
                f"{folder} must have {domain.num_classes} class folders, each of an ImageNet "
                f"class; got {len(found)}"
                + (f", unknown are {', '.join(unknown[:10])}" if unknown else "")
            )
        files: list[str] = []
        labels: list[int] = []
        for path in found:
            images = images_below(path)
            if not images:
                raise DataError(f"no image below {path}")
            files += [image.relative_to(root).as_posix() for image in images]
            labels += [label_of[path.name]] * len(images)
        masked = self.mask_classes and domain.num_classes < space.num_classes
        return Examples(
            FileImages(root, tuple(files)),
            tuple(labels),
            space,
            scored_classes=frozenset(labels) if masked else None,
        )
