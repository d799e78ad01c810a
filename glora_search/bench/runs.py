"""The values of the bench: a run trains one method on one task; a result holds its figures.

Standard library only: they travel between processes and into the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Role = Literal["sweep", "final"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of one method.

    Args:
        task: Name of the task.
        method: As on the command line.
        seed: Of the data's split and of the training. The sweep has a seed of its own.
        lr: Peak learning rate.
        epochs: Passes over the training split; of a supernet 0 for what follows from space and
            data.
        role: `sweep` runs choose the learning rate by the validation split and never see the test
            split; `final` runs are measured on it, once.
        study: Digest of what else decides the figures: the task's study file.
        split: Seed of the data's draw, where it is not `seed`: to tell the two apart.
        test_sets: Names of what one training is tested on, where that is not the task's own test
            split alone: domains.
        batch_size: Images of a step; None for those of the study's supernet.
        question: The experiment to do with the run's trained supernet, see
            `glora_search.bench.science`; empty for an ordinary run.
    """

    task: str
    method: str
    seed: int
    lr: float
    epochs: int
    role: Role
    study: str = ""
    split: int | None = None
    test_sets: tuple[str, ...] = ()
    batch_size: int | None = None
    question: str = ""

    @property
    def key(self) -> str:
        """The identity of the run within its bench."""
        numbers = (str(self.seed), f"{self.lr:.6g}", str(self.epochs), self.study)
        apart = () if self.split is None else (f"split{self.split}",)
        sets = ("+".join(self.test_sets),) if self.test_sets else ()
        batch = () if self.batch_size is None else (f"batch{self.batch_size}",)
        asked = (self.question,) if self.question else ()
        return "/".join(
            (self.role, self.task, self.method, *numbers, *apart, *sets, *batch, *asked)
        )


@dataclass(frozen=True, kw_only=True)
class OnTestSet:
    """Figures on one test set.

    Args:
        loss: Mean cross-entropy, nats.
        top1: Fraction that is right.
        n_images: Of the set.
    """

    loss: float
    top1: float
    n_images: int


@dataclass(frozen=True, kw_only=True)
class ArmFigures:
    """Figures of one of the networks that a question compares.

    Args:
        n_params: Trainable scalars behind it, without the head's; None where it is an average.
        val_loss: As of a run.
        val_top1: As of a run.
        test_loss: As of a run.
        test_top1: As of a run.
        calibrated_loss: As of a run.
        seconds: It took beyond the training of the supernet; core seconds on a CPU.
    """

    n_params: int | None
    val_loss: float
    val_top1: float
    test_loss: float
    test_top1: float
    calibrated_loss: float | None = None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run. A figure is None if the run failed or did not measure it.

    Args:
        run: Which one.
        n_params: Trainable scalars without the head's.
        val_loss: Mean cross-entropy on the validation split, nats.
        val_top1: Fraction of the validation split that is right.
        test_loss: Likewise on the test split; of final runs alone. Of several test sets the mean:
            they share one training, so the bootstrap draws them together.
        test_top1: Likewise.
        calibrated_loss: The test loss after a temperature was fitted on the validation split; of
            runs with one test set.
        n_test: Images of the test split, or of all test sets.
        by_test_set: Name to figures, where the run has several test sets.
        train_s: Seconds of the training; of a search, with the evaluation of its candidates. On a
            CPU they are core seconds, which other processes do not change.
        total_s: Likewise of the whole run, with decoding and evaluation.
        memory_mb: Of a training step, without the weights, MB; see `memory.training_bytes`.
        merges: Whether a plain network is left behind.
        forward_ratio: Time of a forward of what is left behind to one of the plain backbone.
        arms: Name to figures of what a question compares.
        facts: What else a question found, as JSON holds it.
        worker: Who ran it, `host:pid`.
        error: Class and message of what went wrong; None unless it failed.
    """

    run: Run
    n_params: int | None = None
    val_loss: float | None = None
    val_top1: float | None = None
    test_loss: float | None = None
    test_top1: float | None = None
    calibrated_loss: float | None = None
    n_test: int | None = None
    by_test_set: Mapping[str, OnTestSet] = field(default_factory=dict)
    train_s: float = 0.0
    total_s: float = 0.0
    memory_mb: float | None = None
    merges: bool | None = None
    forward_ratio: float | None = None
    arms: Mapping[str, ArmFigures] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    worker: str = ""
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether there is an error instead of figures."""
        return self.error is not None

    @property
    def top1_by_task(self) -> dict[str, float]:
        """Test top-1 by the name of what was tested: the test sets, or the task itself."""
        if self.by_test_set:
            return {name: tested.top1 for name, tested in self.by_test_set.items()}
        return {} if self.test_top1 is None else {self.run.task: self.test_top1}

    def to_json(self) -> dict[str, Any]:
        """As a flat table."""
        table = asdict(self)
        return {**table.pop("run"), **table}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> RunResult:
        """What `to_json` gave.

        Raises:
            TypeError: A field of the run is missing.
        """
        of_run = {f.name: table[f.name] for f in fields(Run) if f.name in table}
        of_run["test_sets"] = tuple(of_run.get("test_sets", ()))
        names = {f.name for f in fields(cls)} - {"run"}
        found = {name: table[name] for name in names if name in table}
        found["by_test_set"] = {
            name: OnTestSet(**figures) for name, figures in found.get("by_test_set", {}).items()
        }
        found["arms"] = {
            name: ArmFigures(**figures) for name, figures in found.get("arms", {}).items()
        }
        return cls(run=Run(**of_run), **found)
