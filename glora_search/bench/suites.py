"""The suites: which tasks each has, and the study of every task.

A suite of files takes its backbone, space, supernet, search and cluster from one study file, of
which it replaces the section [data]; how images are prepared is kept.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from glora_search.bench.layout import Layout
from glora_search.bench.recipes import BATCH_SIZE
from glora_search.study.data_sections import SHARED_KEYS
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import apply_overrides, parse_study
from glora_search.study.study_file import StudyFile
from supernet.data import DOMAINS, DRAWN_TASKS, FEW_SHOT_SETS, PRETRAINING_TASK, VTAB_CLASSES

OFFLINE_TASKS: Final = (*(task for task in DRAWN_TASKS if task != PRETRAINING_TASK), "digits")
"""All tasks of the offline suite: the drawn ones stand for VTAB's structured and specialised
groups, with 800 training, 200 validation and 5,000 test images each; the digits 5-9 are real, with
100, 200 and 596 images, split anew by each seed."""

QUICK_TASKS: Final = ("count", "position", "orientation", "texture", "distance", "cluttered")
"""Those of its quick mode."""

VTAB_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "natural": (
        *("cifar", "caltech101", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397"),
    ),
    "specialised": ("patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"),
    "structured": (
        *("clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc", "dsprites_ori"),
        *("smallnorb_azi", "smallnorb_ele"),
    ),
}
"""The groups of VTAB and their tasks."""

SHOTS: Final = (1, 2, 4, 8, 16)
"""Training images a class for which there are lists."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks to compare methods on.

    Args:
        name: Of its record in the database.
        files: Task to its study, all with the same backbone and [cluster].
        layout: The tasks of the table, and which means are told.
        test_sets: Task to what one training on it is tested on; its own test split if not given.
        published: Whether published figures of VTAB-1k stand beside the results.
        batch_size: Images of a step of methods without a supernet; None for that of the study's
            supernet.
    """

    name: str
    files: Mapping[str, StudyFile]
    layout: Layout
    test_sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: bool = False
    batch_size: int | None = None


def suite_of(file: StudyFile) -> Suite:
    """One study by itself, as a suite of one task."""
    name = file.study.name
    return Suite(name=name, files={name: file}, layout=Layout(tasks=(name,), whole=(name,)))


def offline_suite(
    tasks: Sequence[str] | None,
    directory: Path,
    *,
    workers: int,
    quick: bool = False,
    supernet: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
) -> Suite:
    """Tasks that any machine can draw, and one of real images, with one backbone.

    Args:
        tasks: Names of OFFLINE_TASKS; all of them, or in quick mode QUICK_TASKS, if not given.
        directory: Where the pretrained backbone and the supernets are kept.
        workers: Runs at a time; 0 for one after the other in this process.
        quick: Whether it is the quick mode, which has a record of its own.
        supernet: Keys of [supernet] that are to differ from the suite's study.
        search: Likewise of [search].

    Raises:
        StudyFileError: An unknown task, one that comes twice, or none.
    """
    tasks = _chosen("tasks", tasks or (QUICK_TASKS if quick else None), OFFLINE_TASKS)
    text = resources.files("glora_search.bench").joinpath("offline.toml").read_text()
    files = {}
    for task in tasks:
        table = tomllib.loads(text)
        table["study"]["directory"] = str(directory.absolute())
        table["data"] = {"source": "digits"} if task == "digits" else table["data"] | {"task": task}
        table["cluster"]["workers"] = workers
        table["supernet"] |= supernet or {}
        table["search"] |= search or {}
        files[task] = parse_study(table, origin="the offline suite")
    layout = Layout(tasks=tasks, whole=OFFLINE_TASKS)
    return Suite(
        name="offline-quick" if quick else "offline",
        files=files,
        layout=layout,
        batch_size=BATCH_SIZE,
    )


@dataclass(frozen=True, kw_only=True)
class Base:
    """What all tasks of a suite of files share.

    Args:
        table: A study file as nested dictionaries.
        packaged: Whether it is the one that comes with the package. The suite's record in the
            database is called after the suite; if not, also after that study.
        root: The folder that holds the suite's data sets.
        overrides: As `--set` takes them.
        workers: Runs at a time; None for what the study says.
    """

    table: Mapping[str, Any]
    packaged: bool
    root: Path
    overrides: tuple[str, ...] = ()
    workers: int | None = None

    def study(self, suite: str, **data: Any) -> StudyFile:
        """The study of one task; its name is that of the record.

        Args:
            suite: Its name.
            **data: The keys of [data] that the suite decides, besides the root.

        Raises:
            StudyFileError: The study has mistakes, or an override is of a key that the suite
                decides.
        """
        table = copy.deepcopy(dict(self.table))
        section, given = table.get("study"), table.get("data")
        if isinstance(section, dict) and "name" in section:
            section["name"] = suite if self.packaged else f"{suite}-{section['name']}"
        kept = given if isinstance(given, dict) else {}
        table["data"] = {key: value for key, value in kept.items() if key in SHARED_KEYS}
        apply_overrides(table, self.overrides)
        data["root"] = str(self.root.absolute())
        if clash := sorted(data.keys() & table["data"].keys()):
            raise StudyFileError(f"--set data.{clash[0]}: the suite decides this key")
        table["data"] |= data
        if self.workers is not None:
            apply_overrides(table, [f"cluster.workers={self.workers}"])
        return parse_study(table, origin="the suite's study")


def vtab_suite(base: Base, tasks: Sequence[str] | None = None) -> Suite:
    """VTAB-1k: 19 tasks in three groups; see `supernet.data.VTABSource` for the folders.

    Args:
        base: What the tasks share.
        tasks: Names; all of them if not given.

    Raises:
        StudyFileError: An unknown task, one that comes twice, or a mistake in the study.
    """
    tasks = _chosen("tasks", tasks, VTAB_CLASSES)
    files = {task: base.study("vtab", source="vtab", task=task) for task in tasks}
    return Suite(
        name=_name(files),
        files=files,
        layout=Layout(
            tasks=tasks, whole=tuple(VTAB_CLASSES), groups=VTAB_GROUPS, mean_of_groups=True
        ),
        published=True,
    )


def few_shot_suite(
    base: Base, datasets: Sequence[str] | None = None, shots: Sequence[int] | None = None
) -> Suite:
    """Fine-grained data sets with few images a class: a task is a data set with a number of shots,
    and a group is a number of shots; see `supernet.data.FewShotSource` for the folders.

    Args:
        base: What the tasks share.
        datasets: Names; all five if not given.
        shots: Training images a class; SHOTS if not given.

    Raises:
        StudyFileError: An unknown data set, one that comes twice, or a mistake in the study.
    """
    datasets = _chosen("datasets", datasets, FEW_SHOT_SETS)
    shots = tuple(SHOTS if shots is None else shots)
    if not shots or len(set(shots)) < len(shots) or min(shots) < 1:
        told = ", ".join(map(str, shots)) or "none"
        raise StudyFileError(f"shots = {told}: numbers from 1 on, each once")
    groups = {
        f"{n} shot{'s' if n > 1 else ''}": tuple(few_shot_task(d, n) for d in FEW_SHOT_SETS)
        for n in shots
    }
    files = {
        few_shot_task(dataset, n): base.study(
            "few-shot", source="few-shot", dataset=dataset, shots=n, seed=0
        )
        for n in shots
        for dataset in datasets
    }
    whole = tuple(task for members in groups.values() for task in members)
    return Suite(
        name=_name(files),
        files=files,
        layout=Layout(tasks=tuple(files), whole=whole, groups=groups),
    )


def few_shot_task(dataset: str, shots: int) -> str:
    """The name of a task of the few-shot suite."""
    return f"{dataset}/{shots}"


def domain_suite(base: Base, domains: Sequence[str] | None = None) -> Suite:
    """ImageNet with 16 images a class, tested on ImageNet and four other domains: one task, which
    is trained once for all domains; see `supernet.data.DomainSource` for the folders.

    Args:
        base: What the tasks share.
        domains: Names; all five if not given.

    Raises:
        StudyFileError: An unknown domain, one that comes twice, or a mistake in the study.
    """
    domains = _chosen("domains", domains, DOMAINS)
    file = base.study("domains", source="imagenet-domains", domain="imagenet", seed=0)
    return Suite(
        name=file.study.name,
        files={"imagenet": file},
        layout=Layout(tasks=domains, whole=tuple(DOMAINS)),
        test_sets={"imagenet": tuple(domain for domain in DOMAINS if domain in domains)},
    )


def _name(files: Mapping[str, StudyFile]) -> str:
    return next(iter(files.values())).study.name


def _chosen(what: str, names: Sequence[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """The names asked for, checked; all that are known where None were.

    Raises:
        StudyFileError: An unknown name, one that comes twice, or none; says which are known.
    """
    known = tuple(known)
    found = known if names is None else tuple(names)
    if not found or len(set(found)) < len(found) or not set(found) <= set(known):
        raise StudyFileError(
            f"{what} = {', '.join(found) or 'none'}: each once, of {', '.join(known)}"
        )
    return found
