"""How to train: the recipe of any network, and the design of a supernet's training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from search_spaces import NO_LIMITS, GLoRASearchError, ParamLimits
from supernet.evaluation import Precision

LR_KINDS: Final = ("A", "B", "C", "D", "E", "down", "up", "head")
"""The kinds of tensors that can have a learning rate of their own: those of a support tensor, the
factors of low-rank ones, the classifier head."""


class RecipeError(GLoRASearchError, ValueError):
    """A recipe or a design that contradicts itself."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are the published supernet's.

    Args:
        epochs: Passes over the training split.
        batch_size: Images a step and process; the last batch of an epoch may be smaller.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW, on every trained tensor.
        warmup_epochs: Linear from warmup_lr to lr; fewer where there are hardly more epochs.
        warmup_lr: Learning rate of the first epoch.
        min_lr: Learning rate at which the cosine ends.
        precision: `auto` is bf16 autocast on CUDA and float32 elsewhere.
        label_smoothing: Share of the target that is spread over all classes.
        shift: Each training image moves by up to this many pixels in each direction; what comes in
            from outside is the mean colour.
        ema: Decay of the exponential moving average of the weights over steps, which replaces the
            weights when training ends; 0 for none.
    """

    epochs: int = 500
    batch_size: int = 64
    lr: float = 5e-4
    weight_decay: float = 1e-4
    warmup_epochs: int = 10
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    precision: Precision = "auto"
    label_smoothing: float = 0.0
    shift: int = 0
    ema: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Design:
    """Which subnets a supernet's training takes, and how; the defaults are the published ones.

    Args:
        paths: `uniform` draws each gene of each path uniformly; `fair` takes every choice of a gene
            equally often (FairNAS, Chu et al. 2021, arXiv 1907.01845: consecutive paths form a
            Latin square of choices).
        limits: Uniform paths are drawn from the subnets within these limits.
        paths_per_step: Parts of a step's batch, of which each takes a path of its own.
        sandwich: Random subnets of a step beside the largest and the smallest, all on the whole
            batch, in the place of `paths_per_step`; the largest teaches the others its
            probabilities (BigNAS, Yu et al. 2020, arXiv 2003.11142). 0 for no sandwich.
        noise: Standard deviation of a factor around 1 by which each output of a layer's change is
            multiplied in training.
        consistency: Weight of the squared distance between the logits of two passes that differ in
            noise and drop path (PACE, Ni et al. 2024, arXiv 2409.17137). 0 is one pass.
        lr_factors: Kind of tensor (LR_KINDS) to a factor of its learning rate. `down` with a factor
            above 1 is LoRA+ (Hayou et al. 2024, arXiv 2402.12354). Factors multiply.
        init: `random` starts each `up` at Xavier-uniform; `gradient` at the directions in which the
            loss of the first batches falls most, with the same norm (LoRA-GA, Wang et al. 2024,
            arXiv 2407.05000, without its change of the frozen weight).

    Raises:
        RecipeError: Values that exclude each other, or an unknown kind of tensor.
    """

    paths: Literal["uniform", "fair"] = "uniform"
    limits: ParamLimits = NO_LIMITS
    paths_per_step: int = 1
    sandwich: int = 0
    noise: float = 0.0
    consistency: float = 0.0
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    init: Literal["random", "gradient"] = "random"

    def __post_init__(self) -> None:
        if self.paths == "fair" and self.limits != NO_LIMITS:
            raise RecipeError("fair paths cannot keep to parameter limits; draw them uniformly")
        if unknown := sorted(set(self.lr_factors) - set(LR_KINDS)):
            raise RecipeError(
                f"lr_factors has {', '.join(unknown)}; accepted: {', '.join(LR_KINDS)}"
            )


_FIRST_FIELDS: Final = (
    *("epochs", "batch_size", "lr", "weight_decay"),
    *("warmup_epochs", "warmup_lr", "min_lr", "precision"),
)


def identity_of(recipe: Recipe | Design) -> str:
    """JSON of a recipe or design. Later fields are left out where they have their defaults, so that
    trainings from before these fields keep their identity.
    """
    default = type(recipe)()
    kept: dict[str, Any] = {
        name: value
        for name, value in dataclasses.asdict(recipe).items()
        if name in _FIRST_FIELDS or getattr(recipe, name) != getattr(default, name)
    }
    return json.dumps(kept, sort_keys=True)
