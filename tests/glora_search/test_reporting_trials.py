"""Winner, the best, the Pareto front: by definition, against tables of known fitness."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from reporting_studies import outcome

from glora_search.reporting.trials import best_share, in_search_order, pareto_front, ranking
from glora_search.study.objectives import BY_LOSS, BY_TOP1, LOSS, TOP1, Objective
from glora_search.study.outcomes import Outcome

_SUBNET = outcome(0).candidate.subnet  # what it chooses does not matter here


def _trial(number: int, n_params: int, loss: float, top1: float = 0.5) -> Outcome:
    return outcome(number, subnet=_SUBNET, n_params=n_params, loss=loss, top1=top1)


_TABLES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=14
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(_TABLES, st.sampled_from([LOSS, TOP1]))
def test_front_is_what_no_other_dominates(
    table: list[tuple[int, int, int, bool]], measure: Objective
) -> None:
    """Against the definition, pair by pair: every value on the front once, nothing else."""
    trials = {
        k: outcome(k, subnet=_SUBNET, n_params=n, error_type="E")
        if failed
        else _trial(k, n, loss / 6, top1 / 6)
        for k, (n, loss, top1, failed) in enumerate(table)
    }

    def point(number: int) -> tuple[int, float]:
        score = measure.value(trials[number])
        assert score is not None
        cost = score if measure.direction == "minimize" else -score
        return trials[number].candidate.n_params, cost

    points = {point(k) for k, o in trials.items() if not o.failed}
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    front = pareto_front(trials, measure)
    assert [point(k) for k in front] == sorted(best)


def test_of_equal_trials_the_earliest_is_on_the_front() -> None:
    trials = {5: _trial(1, 10, 0.5), 2: _trial(3, 10, 0.5), 9: _trial(0, 12, 0.5)}
    assert pareto_front(trials, LOSS) == [5]


def test_order_is_that_of_places_and_not_of_arrival() -> None:
    trials = {0: _trial(12, 1, 1.0), 1: _trial(3, 1, 1.0), 2: _trial(4, 1, 1.0)}
    assert list(in_search_order(trials)) == [1, 2, 0]


def test_ranking_follows_the_fitness_and_leaves_failures_out() -> None:
    trials = {
        0: _trial(0, 1, 0.9, top1=0.9),
        1: _trial(1, 1, 0.5, top1=0.7),
        2: outcome(2, subnet=_SUBNET, error_type="E"),
        3: _trial(3, 1, 0.6, top1=0.9),
    }
    assert ranking(trials, BY_LOSS) == [1, 3, 0]
    assert ranking(trials, BY_TOP1) == [3, 0, 1]  # the tie goes to the lower loss


def test_best_are_a_tenth_but_at_least_twenty_and_at_most_the_better_half() -> None:
    def n_best(n: int) -> int:
        trials = {k: _trial(k, 1, 1.0 - k / 1000) for k in range(n)}
        best = best_share(trials, BY_LOSS)
        assert best == [n - 1 - k for k in range(len(best))]
        return len(best)

    assert [n_best(n) for n in (0, 1, 2, 10, 40, 100, 200, 500)] == [0, 1, 1, 5, 20, 20, 20, 50]
