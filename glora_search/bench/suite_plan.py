"""The plan of a suite: which methods are trained, with which rates and epochs, on what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from glora_search.bench.plan import BenchPlan, trains_supernet
from glora_search.bench.recipes import PUBLISHED_LR, sweep_rates
from glora_search.bench.suites import Suite
from glora_search.study.data_sections import DomainData, FewShotData
from glora_search.study.errors import StudyFileError
from glora_search.study.study_file import StudyFile


def make_plan(
    suite: Suite,
    methods: Sequence[str] | None,
    seeds: int,
    epochs: int,
    factors: Sequence[float],
) -> BenchPlan:
    """The runs of a suite.

    Args:
        suite: The tasks.
        methods: Names; all of them if not given.
        seeds: Final runs of each method and task.
        epochs: Of every method but those that train a supernet.
        factors: The learning rates of a sweep, as multiples of the published one.

    Raises:
        StudyFileError: An unknown method, one that comes twice, or none.
    """
    methods = tuple(methods or PUBLISHED_LR)
    check_methods(methods)
    file = next(iter(suite.files.values()))
    return BenchPlan(
        tasks=tuple(suite.files),
        methods=methods,
        seeds=seeds,
        lrs={m: sweep_rates(m, factors) for m in methods},
        epochs={m: file.supernet.epochs if trains_supernet(m) else epochs for m in methods},
        studies={task: study_digest(each) for task, each in suite.files.items()},
        sweep_splits={
            task: each.data.seed
            for task, each in suite.files.items()
            if isinstance(each.data, FewShotData | DomainData)  # a seed is a list there
        },
        test_sets=suite.test_sets,
        batch_size=suite.batch_size,
    )


def check_methods(methods: Sequence[str]) -> None:
    """Raise StudyFileError for a method that cannot be compared, or none at all."""
    unknown = [method for method in methods if method not in PUBLISHED_LR]
    if unknown or not methods or len(set(methods)) < len(methods):
        raise StudyFileError(
            f"methods = {', '.join(methods) or 'none'}: each once, of {', '.join(PUBLISHED_LR)}"
        )


def default_reference(methods: Sequence[str]) -> str:
    """The method of a suite to which the others are compared, where none is named."""
    return "lora" if "lora" in methods else methods[0]


def study_digest(file: StudyFile) -> str:
    """Of all keys that may change a figure: not where runs happen, nor where files go."""
    table = file.model_dump(
        mode="json", exclude={"study": {"name", "directory"}, "cluster": True, "export": True}
    )
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]
