"""One run: prepare the task, adapt the backbone, train, and measure what is left behind."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import statistics
import time
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from glora_search.bench.memory import training_bytes
from glora_search.bench.runs import OnTestSet, Run, RunResult
from glora_search.bench.searched import SEARCHED, search_winner
from glora_search.evaluating.results import worker_name
from glora_search.stages.prepare import Materials, device_of, prepare, use_threads
from glora_search.stages.progress import Silent
from glora_search.study.errors import one_line
from glora_search.study.reading import stored_study
from glora_search.study.study_file import StudyFile
from supernet import Evaluation, Recipe, Split, evaluate_model, train_network
from supernet.methods import METHODS, sized
from supernet.temperature import loss_when_calibrated

_TIMED_PAIRS: Final = 7


class Trained(NamedTuple):
    """What a method leaves behind, in evaluation mode, and what it took.

    Args:
        network: Merged where the method merges.
        n_params: Trainable scalars without the head's.
        memory_bytes: Of a training step, see `training_bytes`.
        merges: Whether `network` is a plain one.
    """

    network: nn.Module
    n_params: int
    memory_bytes: int
    merges: bool


def execute(run: Run, file: StudyFile) -> RunResult:
    """Do one run. What goes wrong becomes part of the result: one bad run ends no bench.

    Args:
        run: Which one.
        file: The study of its task, with the data and the backbone that all methods share.
    """
    try:
        return _execute(run, file)
    except Exception as error:  # noqa: BLE001 - recorded and shown, by whoever asked
        text = one_line(f"{type(error).__name__}: {error}", limit=500)
        return RunResult(run=run, worker=worker_name(), error=text)


def with_seed(file: StudyFile, seed: int) -> StudyFile:
    """The study with another draw of its data, where its source draws at all."""
    if "seed" not in type(file.data).model_fields:
        return file
    data = file.data.model_copy(update={"seed": seed})
    return file.model_copy(update={"data": data})


def with_domain(file: StudyFile, domain: str) -> StudyFile:
    """The study with another test split: that of a domain; its training split stays what it is."""
    return file.model_copy(update={"data": file.data.model_copy(update={"domain": domain})})


class _Prepared:
    """Backbone and data of a study, for several runs."""

    def __init__(self, file: StudyFile) -> None:
        self._materials = prepare(file, Silent())
        self._tests: dict[str | None, Split] = {}

    def materials(self) -> Materials:
        """With a backbone for the caller to change."""
        backbone = copy.deepcopy(self._materials.backbone)
        return dataclasses.replace(self._materials, backbone=backbone)

    def test(self, domain: str | None = None) -> Split:
        """The test split of the study, or of a domain."""
        if domain not in self._tests:
            materials = self._materials
            if domain is not None:
                materials = dataclasses.replace(materials, file=with_domain(materials.file, domain))
            self._tests[domain] = materials.test_split(Silent())
        return self._tests[domain]


@functools.lru_cache(maxsize=1)
def _prepared(study: str) -> _Prepared:
    """Of a study file as JSON. Runs of one task and seed follow each other, so this process keeps
    what the last run had.
    """
    return _Prepared(stored_study(json.loads(study)))


def _execute(run: Run, file: StudyFile) -> RunResult:
    seconds = time.process_time if device_of(file).type == "cpu" else time.perf_counter
    began = seconds()
    file = with_seed(file, run.seed if run.split is None else run.split)
    use_threads(file)
    prepared = _prepared(file.to_json())
    materials = prepared.materials()
    if run.question:
        answered = _answer(run, prepared)
        return dataclasses.replace(answered, total_s=seconds() - began, worker=worker_name())
    started = seconds()
    trained = _train(run, materials)
    train_s = seconds() - started
    val = _measure(trained.network, materials.val, file)
    tests: dict[str, OnTestSet] = {}
    ratio = calibrated_loss = None
    if run.role == "final":
        for name in run.test_sets or (None,):
            found = _measure(trained.network, prepared.test(name), file)
            tests[name or run.task] = OnTestSet(
                loss=found.loss, top1=found.top1, n_images=found.n_images
            )
        if not run.test_sets:
            calibrated_loss = _calibrated_loss(
                trained.network, materials.val, prepared.test(), file
            )
        plain = prepared.materials().backbone.to(device_of(file)).eval()
        ratio = _forward_ratio(trained.network, plain, materials.val)
    return RunResult(
        run=run,
        n_params=trained.n_params,
        val_loss=val.loss,
        val_top1=val.top1,
        test_loss=statistics.fmean(test.loss for test in tests.values()) if tests else None,
        test_top1=statistics.fmean(test.top1 for test in tests.values()) if tests else None,
        calibrated_loss=calibrated_loss,
        n_test=sum(test.n_images for test in tests.values()) if tests else None,
        by_test_set=tests if run.test_sets else {},
        train_s=train_s,
        total_s=seconds() - began,
        memory_mb=trained.memory_bytes / 2**20,
        merges=trained.merges,
        forward_ratio=ratio,
        worker=worker_name(),
    )


def _answer(run: Run, prepared: _Prepared) -> RunResult:
    from glora_search.bench.science.answering import answer

    return answer(run, prepared.materials(), prepared.test())


def _train(run: Run, materials: Materials) -> Trained:
    file = materials.file
    if run.method in SEARCHED:
        winner, n_params, memory_bytes = search_winner(run, materials)
        return Trained(winner, n_params, memory_bytes, merges=True)
    method = METHODS[run.method]()
    backbone = materials.backbone
    if method.from_scratch:
        backbone = materials.architecture.build(drop_path=file.supernet.drop_path, seed=run.seed)
    elif file.search.max_params is not None:
        method = sized(method, backbone, file.search.max_params)
    network = method.adapt(backbone, seed=run.seed).to(device_of(file))
    train = materials.train.to(device_of(file))
    recipe = recipe_of(run, file)
    memory_bytes = training_bytes(network, *next(iter(train.batches(recipe.batch_size))))
    train_network(network, train, recipe, seed=run.seed)
    left = network.merge() if network.merges else network.eval()
    return Trained(left, network.n_params, memory_bytes, network.merges)


def recipe_of(run: Run, file: StudyFile) -> Recipe:
    """The study's recipe with what the run has of its own."""
    fields: dict[str, Any] = file.supernet.recipe_fields()
    fields |= {"lr": run.lr, "epochs": run.epochs, "min_lr": min(fields["min_lr"], run.lr / 10)}
    if run.batch_size is not None:
        fields["batch_size"] = run.batch_size
    return Recipe(**fields)


def _calibrated_loss(network: nn.Module, val: Split, test: Split, file: StudyFile) -> float:
    device = next(network.parameters()).device
    batch_size = file.search.batch_size
    return loss_when_calibrated(network, val.to(device), test.to(device), batch_size=batch_size)


def _measure(network: nn.Module, split: Split, file: StudyFile) -> Evaluation:
    device = next(network.parameters()).device
    return evaluate_model(network, split.to(device), batch_size=file.search.batch_size)


@torch.inference_mode()
def _forward_ratio(network: nn.Module, plain: nn.Module, split: Split) -> float:
    """Median over interleaved pairs, on one batch of the validation split."""
    images, _ = next(iter(split.batches(64)))
    images = images.to(next(plain.parameters()).device)

    def seconds(model: nn.Module) -> float:
        since = time.perf_counter()
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        return time.perf_counter() - since

    for model in (network, plain):
        seconds(model)
    return statistics.median(seconds(network) / seconds(plain) for _ in range(_TIMED_PAIRS))
