"""Draws under limits: uniform among all that the limits admit, and able to find the rare ones."""

import math
import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
from example_spaces import vit_b_space
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import InfeasibleLimitError, ParamLimits
from search_spaces.draws import check_feasible, draw

# `draw` lists the 32 combinations of the first, and draws the 1,024 of the second by rejection.
FEW = [(0, 1, 5, 9), (0, 17), (2, 3, 4, 7)]
MANY = [(0, 1, 5, 12)] * 3 + [(3, 0, 2, 12), (0, 6, 6, 12)]


@pytest.mark.slow
@pytest.mark.parametrize("costs", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize(
    "limits",
    [
        ParamLimits(),
        ParamLimits(max_params=11),
        ParamLimits(max_params=20),
        ParamLimits(max_params=5),
        ParamLimits(min_params=26),
        ParamLimits(min_params=29),
        ParamLimits(min_params=20, max_params=22),
        ParamLimits(min_params=30, max_params=33),
        ParamLimits(min_params=2, max_params=6),
    ],
    ids=str,
)
def test_draws_are_uniform_among_all_that_the_limits_admit(costs, limits):
    """Chi-square against the list of all combinations, rare and common ones alike."""
    allowed = [
        chosen
        for chosen in product(*(range(len(options)) for options in costs))
        if limits.allow(sum(options[k] for options, k in zip(costs, chosen, strict=True)))
    ]
    assert 2 <= len(allowed) <= 1024
    rng = random.Random(1)
    n = 30 * len(allowed)
    counts = Counter(tuple(draw(costs, rng, limits)) for _ in range(n))
    assert counts.keys() <= set(allowed)
    chi_square = sum((counts[chosen] - 30) ** 2 / 30 for chosen in allowed)
    freedom = len(allowed) - 1
    # Mean `freedom`, variance about 2 * freedom; six deviations are far out, a bias far beyond.
    assert chi_square < freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.slow
@pytest.mark.parametrize("costs", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize(
    "limits",
    [ParamLimits(), ParamLimits(max_params=11), ParamLimits(min_params=20, max_params=22)],
    ids=str,
)
def test_weighted_draws_are_in_proportion_to_their_weights(costs, limits):
    """Chi-square against the products of the weights of all combinations that are allowed."""
    rng = random.Random(2)
    weights = [tuple(0.25 + 2 * rng.random() for _ in options) for options in costs]
    expected = {
        chosen: math.prod(each[k] for each, k in zip(weights, chosen, strict=True))
        for chosen in product(*(range(len(options)) for options in costs))
        if limits.allow(sum(options[k] for options, k in zip(costs, chosen, strict=True)))
    }
    n = 40 * len(expected)
    scale = n / sum(expected.values())
    counts = Counter(tuple(draw(costs, rng, limits, weights=weights)) for _ in range(n))
    assert counts.keys() <= expected.keys()
    chi_square = sum((counts[c] - scale * w) ** 2 / (scale * w) for c, w in expected.items())
    freedom = len(expected) - 1
    assert chi_square < freedom + 6 * math.sqrt(2 * freedom)
    uniform = sum((counts[c] - 40) ** 2 / 40 for c in expected)
    seen = uniform > freedom + 6 * math.sqrt(2 * freedom)
    assert seen or freedom < 10, "a test that does not see the weights proves nothing"


def test_equal_weights_draw_what_no_weights_draw_under_limits():
    """The same stream of random numbers: older studies keep their subnets."""
    limits = ParamLimits(max_params=20)
    ones = [(1.0,) * len(options) for options in MANY]
    one, other = random.Random(3), random.Random(3)
    for _ in range(50):
        assert draw(MANY, one, limits) == draw(MANY, other, limits, weights=ones)


def test_the_uniformity_test_sees_a_bias():
    """The bound above rejects the tempting way: draw freely, then lower genes until it fits."""
    limits = ParamLimits(max_params=11)
    rng = random.Random(1)

    def repaired():
        chosen = [rng.randrange(4) for _ in MANY]
        for gene in rng.sample(range(len(MANY)), len(MANY)):
            if limits.allow(sum(options[k] for options, k in zip(MANY, chosen, strict=True))):
                break
            chosen[gene] = MANY[gene].index(min(MANY[gene]))
        return tuple(chosen)

    allowed = [
        chosen
        for chosen in product(range(4), repeat=5)
        if limits.allow(sum(options[k] for options, k in zip(MANY, chosen, strict=True)))
    ]
    counts = Counter(repaired() for _ in range(30 * len(allowed)))
    chi_square = sum((counts[chosen] - 30) ** 2 / 30 for chosen in allowed)
    freedom = len(allowed) - 1
    assert chi_square > freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(
    costs=st.lists(
        st.lists(st.integers(0, 10**6), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12
    ),
    slack=st.floats(0, 1),
    seed=st.integers(),
)
def test_every_upper_limit_above_the_smallest_is_met(costs, slack, seed):
    """Whatever the costs: one gene that dwarfs the others, all alike, all zero."""
    smallest, largest = sum(map(min, costs)), sum(map(max, costs))
    upper = smallest + int(slack * (largest - smallest))
    chosen = draw(costs, random.Random(seed), ParamLimits(max_params=upper))
    assert sum(options[k] for options, k in zip(costs, chosen, strict=True)) <= upper


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(
    costs=st.lists(
        st.lists(st.integers(0, 10**6), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12
    ),
    slack=st.floats(0, 1),
    seed=st.integers(),
)
def test_every_lower_limit_below_the_largest_is_met(costs, slack, seed):
    """The tilt leans the other way."""
    smallest, largest = sum(map(min, costs)), sum(map(max, costs))
    lower = largest - int(slack * (largest - smallest))
    chosen = draw(costs, random.Random(seed), ParamLimits(min_params=lower))
    assert sum(options[k] for options, k in zip(costs, chosen, strict=True)) >= lower


def test_a_limit_that_one_in_a_million_meets_fills_a_population():
    """ViT-B/16 with 48 layers; the limit's rarity is computed exactly, not estimated."""
    space = vit_b_space("glora_r8")
    # All costs are about multiples of 768. Rounded down, their sum has a distribution that a
    # convolution gives exactly, and P(cost <= U) <= P(768 * sum <= U).
    unit = 768
    distribution = np.ones(1)
    for options in space.costs:
        gene = np.zeros(max(options) // unit + 1)
        for cost in options:
            gene[cost // unit] += 1 / len(options)
        distribution = np.convolve(distribution, gene)
    rare = int(np.searchsorted(np.cumsum(distribution), 1e-6)) - 1
    limits = ParamLimits(max_params=unit * rare)
    assert 100_000 < limits.max_params < 500_000

    rng = random.Random(0)
    population = [space.sample(rng, limits) for _ in range(50)]
    assert len({subnet.digest for subnet in population}) == 50
    assert all(space.n_params(subnet) <= limits.max_params for subnet in population)


@pytest.mark.slow
def test_a_tight_limit_favours_no_block():
    """The twelve blocks of ViT-B/16 have the same shapes, so they must share the budget evenly."""
    space = vit_b_space("glora_r8")
    rng = random.Random(0)
    n = 400
    spent = np.zeros((n, 12))
    for row in spent:
        chosen = draw(space.costs, rng, ParamLimits(max_params=450_000))
        costs = [options[k] for options, k in zip(space.costs, chosen, strict=True)]
        row[:] = np.reshape(costs, (12, -1)).sum(axis=1)
    mean, error = spent.mean(axis=0), spent.std(axis=0) / math.sqrt(n)
    assert np.all(np.abs(mean - mean.mean()) < 4 * error)


def test_the_same_generator_draws_the_same():
    for limits in (ParamLimits(), ParamLimits(max_params=11)):
        one = [draw(MANY, random.Random("s"), limits) for _ in range(3)]
        assert one[0] == one[1] == one[2]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ParamLimits(max_params=1), "max_params=1 admits no subnet: the smallest has 2"),
        (ParamLimits(min_params=34), "min_params=34 admits no subnet: the largest has 33"),
    ],
)
def test_limits_outside_the_extremes_are_refused(limits, message):
    """The message says how far off the limit is."""
    with pytest.raises(InfeasibleLimitError, match=message):
        check_feasible(FEW, limits)
    with pytest.raises(InfeasibleLimitError, match=message):
        draw(FEW, random.Random(0), limits)


def test_a_window_between_the_sums_is_refused():
    """Listed or drawn, a window that no combination falls into ends with an error, not a hang."""
    odd = ParamLimits(min_params=15, max_params=15)
    with pytest.raises(InfeasibleLimitError, match="no subnet with 15 to 15 parameters"):
        draw([(0, 10)] * 3, random.Random(0), odd)
    with pytest.raises(InfeasibleLimitError, match="300 draws met no subnet with 15 to 15"):
        draw([(0, 10)] * 12, random.Random(0), odd, max_draws=300)


@pytest.mark.parametrize(("lower", "upper"), [(5, 4), (0, -1), (-3, -2)])
def test_contradictory_limits_are_refused(lower, upper):
    with pytest.raises(InfeasibleLimitError, match=f"min_params={lower}, max_params={upper}"):
        ParamLimits(lower, upper)


@settings(deadline=None, derandomize=True)
@given(
    lower=st.integers(0, 50),
    width=st.none() | st.integers(0, 50),
    spent=st.integers(0, 120),
    rest=st.integers(0, 120),
)
def test_limits_on_the_rest_agree_with_limits_on_the_whole(lower, width, spent, rest):
    limits = ParamLimits(lower, None if width is None else lower + width)
    if width is not None and spent > lower + width:
        with pytest.raises(InfeasibleLimitError):
            limits.after(spent)
    else:
        assert limits.after(spent).allow(rest) == limits.allow(spent + rest)
