"""The answers as tables: rows with paired differences, and rank correlations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.stats import kendalltau

from glora_search.bench.layout import Layout
from glora_search.bench.runs import RunResult
from glora_search.bench.statistics import Cells, Interval, interval, paired_difference, suite_mean
from glora_search.bench.table import Row, cells, comparison

_TOP: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class ScienceTable:
    """Networks that are compared.

    Args:
        name: What is compared.
        reference: The row to which the others are compared.
        rows: As of a comparison.
        val_differences: Row to its val loss less that of the reference, paired.
        calibrated: Row to its test loss after a temperature was fitted on val; of rows that have
            it in all cells.
        calibrated_differences: Row to that less that of the reference, paired.
        seconds: Row to the core seconds of a cell, with the training of the supernet.
    """

    name: str
    reference: str
    rows: Sequence[Row]
    val_differences: Mapping[str, Interval | None]
    calibrated: Mapping[str, float]
    calibrated_differences: Mapping[str, Interval | None]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "reference": self.reference,
            "rows": [row.to_json() for row in self.rows],
            "val_loss_differences": _as_json(self.val_differences),
            "calibrated_loss": dict(self.calibrated),
            "calibrated_loss_differences": _as_json(self.calibrated_differences),
            "seconds": dict(self.seconds),
        }


def _as_json(found: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {name: None if each is None else each.to_json() for name, each in found.items()}


def arms_of(results: Iterable[RunResult], *, named: str | None = None) -> list[RunResult]:
    """Each arm as the result of a run of a method of that name.

    Args:
        results: Of questions; failed ones are left out.
        named: Take the first arm alone, under this name.
    """
    found = []
    for result in results:
        if result.failed:
            continue
        arms = list(result.arms.items())
        for name, arm in arms[:1] if named is not None else arms:
            found.append(
                RunResult(
                    run=replace(result.run, method=named or name),
                    n_params=arm.n_params,
                    val_loss=arm.val_loss,
                    val_top1=arm.val_top1,
                    test_loss=arm.test_loss,
                    test_top1=arm.test_top1,
                    calibrated_loss=arm.calibrated_loss,
                    n_test=result.n_test,
                    train_s=result.train_s + arm.seconds,
                    merges=True,
                )
            )
    return found


def science_table(
    name: str, results: Sequence[RunResult], reference: str, layout: Layout
) -> ScienceTable:
    """A table with one row a method, in the order in which methods come.

    Args:
        name: Its title.
        results: Of methods and of arms.
        reference: The row to which the others are compared.
        layout: The tasks.
    """
    methods = list(dict.fromkeys(result.run.method for result in results))
    by_method = {m: [r for r in results if r.run.method == m and not r.failed] for m in methods}
    losses = {m: cells(found, lambda r: r.val_loss) for m, found in by_method.items()}
    tempered = {m: cells(found, lambda r: r.calibrated_loss) for m, found in by_method.items()}

    def differences(figures: Mapping[str, Cells]) -> dict[str, Interval | None]:
        return {
            method: paired_difference(figures[method], figures[reference])
            for method in methods
            if method != reference and reference in figures
        }

    return ScienceTable(
        name=name,
        reference=reference,
        rows=comparison(results, methods, reference, layout),
        val_differences=differences(losses),
        # Results from before this figure have none; a mean over fewer cells would mislead.
        calibrated={
            name: suite_mean(found)
            for name, found in tempered.items()
            if found and found.keys() == losses[name].keys()
        },
        calibrated_differences=differences(tempered),
        seconds={
            method: float(np.mean([r.train_s for r in found]))
            for method, found in by_method.items()
            if found
        },
    )


@dataclass(frozen=True, kw_only=True)
class RankTable:
    """Kendall's tau between the val losses of subnets trained alone and inherited ones.

    Args:
        subnets: Of a cell.
        taus: Which weights were inherited to tau over all subnets, mean over cells.
        top_taus: Likewise over the fifth with the lowest loss alone.
    """

    subnets: int
    taus: Mapping[str, Interval]
    top_taus: Mapping[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "subnets": self.subnets,
            **{
                name: {key: each.to_json() for key, each in found.items()}
                for name, found in (("tau", self.taus), ("tau_top_fifth", self.top_taus))
            },
        }


def rank_table(results: Iterable[RunResult]) -> RankTable | None:
    """From the facts of the question `ranking`; None without any."""
    known = [result for result in results if not result.failed]
    if not known:
        return None
    taus: dict[str, dict[tuple[str, int], float]] = {}
    tops: dict[str, dict[tuple[str, int], float]] = {}
    for result in known:
        cell = result.run.task, result.run.seed
        alone = np.asarray(result.facts["alone"])
        best = np.argsort(alone)[: max(3, round(_TOP * len(alone)))]
        for name in ("inherited", "tenth", "untrained"):
            losses = np.asarray(result.facts[name])
            taus.setdefault(name, {})[cell] = _tau(alone, losses)
            tops.setdefault(name, {})[cell] = _tau(alone[best], losses[best])
    return RankTable(
        subnets=len(known[0].facts["alone"]),
        taus={name: interval(found) for name, found in taus.items()},
        top_taus={name: interval(found) for name, found in tops.items()},
    )


def _tau(first: Any, second: Any) -> float:
    """Kendall's tau-b; 0 where one side is constant."""
    tau = float(kendalltau(first, second).statistic)
    return 0.0 if np.isnan(tau) else tau


def evaluations_needed(results: Iterable[RunResult], reference: str) -> dict[str, Interval]:
    """How many evaluations each sampler needs for the val loss at which `reference` ends; twice the
    number that were made where it does not get there, so a mean near that is a lower bound.

    Args:
        results: Of the question `samplers`.
        reference: A sampler.
    """
    needed: dict[str, dict[tuple[str, int], float]] = {}
    for result in results:
        if result.failed:
            continue
        curves = result.facts["curves"]
        goal = curves[reference][-1]
        for name, curve in curves.items():
            reached = [k for k, loss in enumerate(curve, start=1) if loss <= goal]
            count = float(reached[0] if reached else 2 * len(curve))
            needed.setdefault(name, {})[result.run.task, result.run.seed] = count
    return {name: interval(found) for name, found in needed.items()}


def flattery(results: Iterable[RunResult]) -> dict[str, Interval]:
    """From the facts of the question `fitness`: how much higher the loss on images that a search
    did not see is than on those that it saw, of its winner and of random subnets; and their
    difference, the winner's curse.
    """
    gaps: dict[str, dict[tuple[str, int], float]] = {}
    for result in results:
        if result.failed:
            continue
        cell = result.run.task, result.run.seed
        found = result.facts["flattery"]
        curse = found["winner"] - found["random subnet"]
        for name, gap in {**found, "winner less random": curse}.items():
            gaps.setdefault(name, {})[cell] = gap
    return {name: interval(found) for name, found in gaps.items()}


@dataclass(frozen=True, kw_only=True)
class FrontTable:
    """Searches of two objectives, by the hypervolume of their fronts, in nats.

    Args:
        reference: The search to which the others are compared.
        evaluations: Of each search.
        volumes: Search to its hypervolume at the end.
        differences: Search to its hypervolume at the end less that of the reference, paired.
        halfway: The same after half of the evaluations.
        seconds: Search to its core seconds.
    """

    reference: str
    evaluations: int
    volumes: Mapping[str, Interval]
    differences: Mapping[str, Interval | None]
    halfway: Mapping[str, Interval | None]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        kinds = {
            "hypervolume": self.volumes,
            "difference": self.differences,
            "difference_halfway": self.halfway,
        }
        return {
            "reference": self.reference,
            "evaluations": self.evaluations,
            "seconds": dict(self.seconds),
            **{
                kind: {
                    name: None if each is None else each.to_json() for name, each in found.items()
                }
                for kind, found in kinds.items()
            },
        }


def front_table(
    results: Iterable[RunResult], reference: str, *, evaluations: int
) -> FrontTable | None:
    """From the facts of the question `fronts`; None without any.

    Args:
        results: Of the question; failed ones are left out.
        reference: The search to which the others are compared.
        evaluations: Of each search.
    """
    known = [result for result in results if not result.failed]
    if not known:
        return None
    names = list(known[0].facts["curves"])

    def cells_at(name: str, share: float) -> dict[tuple[str, int], float]:
        curves = {(r.run.task, r.run.seed): r.facts["curves"][name] for r in known}
        return {
            cell: curve[max(0, round(share * len(curve)) - 1)] for cell, curve in curves.items()
        }

    def differences(share: float) -> dict[str, Interval | None]:
        ours = cells_at(reference, share)
        return {n: paired_difference(cells_at(n, share), ours) for n in names if n != reference}

    return FrontTable(
        reference=reference,
        evaluations=evaluations,
        volumes={name: interval(cells_at(name, 1.0)) for name in names},
        differences=differences(1.0),
        halfway=differences(0.5),
        seconds={n: float(np.mean([r.facts["seconds"][n] for r in known])) for n in names},
    )
