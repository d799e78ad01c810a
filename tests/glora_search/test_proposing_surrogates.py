"""Surrogates: what they predict, which child they choose, and that generations stay pure."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import mean

import numpy as np
import pytest
from known_fitness import loss_of, searched, vit_space

from glora_search.proposing import SearchSettings, make_proposer
from glora_search.proposing.surrogates import fitted, ridge
from glora_search.study.objectives import BY_LOSS, BY_TOP1
from glora_search.study.outcomes import Outcome
from search_spaces import InvalidConfigError, LayerSpec, ParamLimits, SearchSpace

SPACE = vit_space(3)
SMALL = SearchSettings(population=16, mutations=6, crossovers=6, parents=5, proposals=4)
KINDS = ["ridge", pytest.param("trees", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def history() -> list[Outcome]:
    """Four generations of sixteen."""
    return searched(SPACE, make_proposer(SPACE, SMALL, seed=1), range(4))


def test_the_penalty_and_the_weights_are_those_of_leaving_each_row_out() -> None:
    """The closed form against 25 fits without one row each, for every penalty."""
    rng = np.random.default_rng(0)
    for n, p in ((25, 9), (25, 60)):  # either of the two decompositions
        x = rng.integers(0, 2, (n, p)).astype(float)
        y = x[:, 0] - 2 * x[:, 1] + rng.normal(size=n)
        y -= y.mean()
        spectrum = np.linalg.eigvalsh((x - x.mean(0)) @ (x - x.mean(0)).T)
        alphas = np.logspace(-3, 3, 13) * spectrum[spectrum > 1e-9 * spectrum[-1]].mean()
        others = [np.arange(n) != k for k in range(n)]
        errors = [
            sum(
                (y[k] - regressed(x[kept], y[kept], alpha, x[k])) ** 2
                for k, kept in enumerate(others)
            )
            for alpha in alphas
        ]
        new = rng.integers(0, 2, (5, p)).astype(float)
        best = regressed(x, y, alphas[int(np.argmin(errors))], new)
        assert ridge(x, y)(new) == pytest.approx(best, abs=1e-8)


def regressed(x, y, alpha, new):
    """What ridge regression by its normal equations says of `new`."""
    center = x.mean(0)
    gram = (x - center).T @ (x - center) + alpha * np.eye(x.shape[1])
    return (new - center) @ np.linalg.solve(gram, (x - center).T @ (y - y.mean())) + y.mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objectives", [BY_LOSS, BY_TOP1], ids=str)
def test_what_is_predicted_to_be_better_is_better(kind, objectives, history) -> None:
    """Of subnets that the model has not seen; also where the fitness is to be high."""
    model = fitted(SPACE, replace(SMALL, surrogate=kind, objectives=objectives), history, 0)
    rng = random.Random(7)
    subnets = [SPACE.sample(rng) for _ in range(100)]
    predicted = model.predict([SPACE.encode(subnet) for subnet in subnets])
    ranked = sorted(range(100), key=predicted.__getitem__)
    losses = [loss_of(SPACE, subnets[k]) for k in ranked]
    assert mean(losses[:50]) < mean(losses[50:]) - 0.01


def test_there_is_no_model_before_there_is_something_to_learn(history) -> None:
    """Too few outcomes, only failures, or one value for all."""
    settings = replace(SMALL, surrogate="ridge")
    failed = [replace(o, loss=None, top1=None, error_type="OSError", error="disk") for o in history]
    assert fitted(SPACE, settings, history[:29], 0) is None
    assert fitted(SPACE, settings, failed + history[:29], 0) is None
    assert fitted(SPACE, settings, [replace(o, loss=0.5) for o in history], 0) is None
    assert fitted(SPACE, settings, history[:30], 0) is not None
    assert fitted(SPACE, SMALL, history, 0) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_candidate_of_a_place_is_the_best_of_its_children(kind, history) -> None:
    """And a child of the operator that the place has without a surrogate."""
    settings = replace(SMALL, surrogate=kind)
    plain = make_proposer(SPACE, SMALL, seed=1).propose(4, history)
    chosen = make_proposer(SPACE, settings, seed=1).propose(4, history)
    assert [c.operator for c in chosen] == [c.operator for c in plain]
    assert [c.place for c in chosen] == [(4, k) for k in range(16)]
    seen = {o.candidate.subnet.digest for o in history}
    assert len({c.subnet.digest for c in chosen} - seen) == 16
    one = make_proposer(SPACE, replace(settings, proposals=1), seed=1).propose(4, history)
    many = make_proposer(SPACE, replace(settings, proposals=30), seed=1).propose(4, history)
    model = fitted(SPACE, settings, history, 0)
    likings = [
        mean(model.predict([SPACE.encode(c.subnet) for c in each])) for each in (many, chosen, one)
    ]
    assert likings == sorted(likings)
    assert likings[0] < likings[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_generation_is_a_function_of_the_outcomes_before_it(kind, history) -> None:
    """Not of their order, of who evaluated them, or of what has arrived of later generations."""
    settings = replace(SMALL, surrogate=kind)
    expected = make_proposer(SPACE, settings, seed=1).propose(
        3, [o for o in history if o.candidate.generation < 3]
    )
    rng = random.Random(0)
    for _ in range(2):
        arrivals = [replace(o, worker=f"a:{rng.random()}", eval_s=rng.random()) for o in history]
        rng.shuffle(arrivals)
        assert make_proposer(SPACE, settings, seed=1).propose(3, arrivals) == expected
    assert make_proposer(SPACE, settings, seed=2).propose(3, history) != expected


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_kept_and_small_spaces_end(kind) -> None:
    limits = ParamLimits(min_params=700, max_params=1_000)
    settings = replace(SMALL, surrogate=kind, limits=limits)
    found = searched(SPACE, make_proposer(SPACE, settings, seed=3), range(4))
    assert len({o.candidate.subnet.digest for o in found}) == 64
    assert all(limits.allow(SPACE.n_params(o.candidate.subnet)) for o in found)


def test_the_last_subnets_of_a_small_space_are_found_with_a_model() -> None:
    """The places before one may take all of its children."""
    choices = {"A": ["vector", "constant", "none"], "B": ["vector", "none"], "C": ["none"]}
    space = SearchSpace(
        [LayerSpec(f"blocks.{b}.fc", 4, 4, bias=True) for b in range(2)],
        {**choices, "D": ["none"], "E": ["vector", "none"]},
    )
    settings = replace(SMALL, surrogate="ridge", population=60)
    history = searched(space, make_proposer(space, settings, seed=0), range(4))
    assert [sum(o.candidate.generation == g for o in history) for g in range(4)] == [60, 60, 24, 0]
    assert len({o.candidate.subnet.digest for o in history}) == space.size == 144


@pytest.mark.slow
def test_a_surrogate_finds_better_subnets_with_the_same_evaluations() -> None:
    """Six generations on three landscapes with interactions."""
    gains = []
    for landscape in "abc":
        best = []
        for surrogate in ("none", "ridge"):
            settings = replace(SMALL, surrogate=surrogate, proposals=10)
            proposer = make_proposer(SPACE, settings, seed=ord(landscape))
            best.append(min(o.loss for o in searched(SPACE, proposer, range(6), landscape)))
        gains.append(best[0] - best[1])
    assert mean(gains) > 0


@pytest.mark.parametrize(
    "fields", [{"sampler": "tpe"}, {"mode": "steady-state"}, {"surrogate": "forest"}]
)
def test_a_surrogate_needs_generations_that_are_bred(fields) -> None:
    with pytest.raises(InvalidConfigError, match="surrogate"):
        SearchSettings(**{"surrogate": "ridge", **fields})
    with pytest.raises(InvalidConfigError, match="proposals must be at least 1"):
        SearchSettings(surrogate="ridge", proposals=0)
