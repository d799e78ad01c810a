"""A trained supernet with its data, on which an experiment is done."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from torch import nn

from glora_search.bench.runs import ArmFigures
from glora_search.evaluating import SubnetScorer
from glora_search.evaluating.results import score_run, worker_name
from glora_search.proposing import SearchSettings, Sensitivity, make_proposer
from glora_search.stages.prepare import Materials, device_of, param_limits
from glora_search.stages.searching import exact_evaluator, search_settings
from glora_search.stages.warm_start import measured_sensitivity
from glora_search.study.outcomes import Outcome
from search_spaces import GLoRASearchError, SearchSpace, SubnetConfig
from supernet import Split, SubnetEvaluator, Supernet, evaluate_model
from supernet.temperature import loss_when_calibrated

_BATCH: Final = 256

T = TypeVar("T")


@dataclass(frozen=True, eq=False, kw_only=True)
class Bed:
    """Args:
    materials: Of the task, with the draw of the data of this seed, and the backbone as it is
        before there is a supernet over it.
    supernet: Trained.
    test: The test split. Only figures that are reported are taken on it.
    seed: Of searches and of random subnets.
    """

    materials: Materials
    supernet: Supernet
    test: Split
    seed: int

    @property
    def space(self) -> SearchSpace:
        """Of the supernet."""
        return self.supernet.space

    @cached_property
    def val(self) -> Split:
        """The validation split, on the device of the supernet."""
        return self.materials.val.to(device_of(self.materials.file))

    @cached_property
    def evaluator(self) -> SubnetEvaluator:
        """Scores subnets on the validation split."""
        return exact_evaluator(self.materials, self.supernet, self.val)

    @cached_property
    def sensitivity(self) -> Sensitivity | None:
        """What a search that starts by it has to know of the supernet."""
        return measured_sensitivity(self.materials, self.supernet)

    @cached_property
    def settings(self) -> SearchSettings:
        """Those of the study."""
        return search_settings(self.materials.file)

    @cached_property
    def evolved(self) -> list[Outcome]:
        """All outcomes of the study's search, best first."""
        return self.search(self.settings)

    @property
    def winner(self) -> SubnetConfig:
        """The best of them."""
        return self.evolved[0].candidate.subnet

    def search(self, settings: SearchSettings, scorer: SubnetScorer | None = None) -> list[Outcome]:
        """The outcomes of a search in memory, best first.

        Args:
            settings: Of the search.
            scorer: Of its candidates; `evaluator` if not given.

        Raises:
            GLoRASearchError: Every candidate failed.
        """
        outcomes = self.outcomes(settings, scorer)
        fine = [outcome for outcome in outcomes if not outcome.failed]
        if not fine:
            raise GLoRASearchError(f"every candidate failed; the last error: {outcomes[-1].error}")
        return sorted(fine, key=settings.objectives.rank)

    def outcomes(
        self, settings: SearchSettings, scorer: SubnetScorer | None = None
    ) -> list[Outcome]:
        """The same in the order of their evaluation, with failures."""
        proposer = make_proposer(self.space, settings, self.seed, sensitivity=self.sensitivity)
        history: list[Outcome] = []
        for generation in range(settings.generations + 1):
            candidates = proposer.propose(generation, history)
            subnets = [candidate.subnet for candidate in candidates]
            found = score_run(scorer or self.evaluator, subnets)
            batch = {r.position: r.outcome(candidates[r.position], worker_name()) for r in found}
            history += [batch[position] for position in sorted(batch)]
        return history

    def random_subnets(self, n: int) -> list[SubnetConfig]:
        """Uniform within the study's limits."""
        draws = random.Random(f"science/{self.seed}")
        limits = param_limits(self.materials.file)
        return [self.space.sample(draws, limits) for _ in range(n)]

    def losses(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        """Val losses with the inherited weights; infinite where a subnet fails."""
        found = dict(self.evaluator.evaluate_each(subnets))
        results = [found[position] for position in range(len(subnets))]
        return [float("inf") if isinstance(r, Exception) else r.loss for r in results]

    def figures(self, network: nn.Module, n_params: int | None, seconds: float = 0.0) -> ArmFigures:
        """What is reported of a network.

        Args:
            network: Plain, in evaluation mode.
            n_params: Trainable scalars behind it, without the head's.
            seconds: It took beyond the training of the supernet, core seconds on a CPU.
        """
        val = evaluate_model(network, self.val, batch_size=_BATCH)
        tested = self.test.to(self._device)
        test = evaluate_model(network, tested, batch_size=_BATCH)
        return ArmFigures(
            n_params=n_params,
            val_loss=val.loss,
            val_top1=val.top1,
            test_loss=test.loss,
            test_top1=test.top1,
            calibrated_loss=loss_when_calibrated(network, self.val, tested, batch_size=_BATCH),
            seconds=seconds,
        )

    def subnet_figures(self, subnet: SubnetConfig, seconds: float = 0.0) -> ArmFigures:
        """The same of a subnet with its inherited weights."""
        return self.figures(self.supernet.merge(subnet), self.space.n_params(subnet), seconds)

    @property
    def _device(self) -> Any:
        return device_of(self.materials.file)


def timed(what: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and its core seconds."""
    since = time.process_time()
    found = what()
    return found, time.process_time() - since
