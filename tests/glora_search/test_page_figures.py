"""The page's figures: what is drawn where, read back from their paths."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from reporting_studies import VIT, outcome, outcomes, recorded

from glora_search.reporting.course import hypervolume_so_far
from glora_search.reporting.snapshot import take_snapshot
from glora_search.reporting.trials import pareto_front
from glora_search.server.page.charts import (
    SIDE,
    Scale,
    dots,
    number_texts,
    scale_of,
    stairs,
    step_for,
)
from glora_search.server.page.choices import survival_charts, token_css
from glora_search.server.page.figures import (
    Compared,
    history_chart,
    spark_path,
    trade_off_chart,
)
from glora_search.server.page.fronts import front_of, shared_growth
from glora_search.server.page.layers import subnet_tables
from glora_search.server.page.workers import worker_lines
from glora_search.study.objectives import BY_LOSS, BY_LOSS_AND_PARAMS, LOSS, TOP1

TRIALS = {**dict(enumerate(outcomes(40))), 7: outcome(7, error_type="E")}


def path(chart: object, css: str) -> str:
    """The path of a chart that has a class."""
    (found,) = [shape.d for shape in chart.shapes if css in shape.css.split()]  # type: ignore[attr-defined]
    return found


def numbers(d: str) -> list[int]:
    return [int(n) for n in re.findall(r"-?\d+", d)]


@pytest.mark.parametrize(
    ("low", "high", "log", "texts"),
    [
        (0, 1050, False, ["0", "500", "1,000"]),
        (0.33, 0.61, False, ["0.4", "0.5", "0.6"]),
        (0.02, 30, True, ["0.1", "1.0", "10.0"]),
        (84.2, 84.6, False, ["84.2", "84.3", "84.4", "84.5", "84.6"]),
    ],
)
def test_ticks_are_round_numbers_that_differ(
    low: float, high: float, log: bool, texts: list[str]
) -> None:
    """An axis whose labels repeat, or have seven decimals, tells nothing."""
    assert number_texts(Scale(low, high, log).ticks(5)) == texts


def test_a_scale_holds_what_it_is_made_of_even_a_single_value() -> None:
    """The first evaluation of a study is a chart too; a scale without length would divide by 0."""
    for values in ([3.0], [0.0], [-1.0, 5.0], []):
        scale = scale_of(values)
        assert all(0 < scale.share(value) < 1 for value in values)
        assert scale.ticks()


def test_history_draws_each_subnet_the_best_so_far_and_the_failures() -> None:
    """Dots of all operators are together the complete trials; a failure is a mark at the bottom."""
    chart = history_chart(TRIALS, LOSS)
    drawn = sum(shape.d.count("h0") for shape in chart.shapes if "dots" in shape.css)
    assert drawn == 39
    assert path(chart, "failed").count("M") == 1
    assert path(chart, "failed").endswith(f"{SIDE}v-40")
    levels = [int(y) for y in re.findall(r"V(\d+)", path(chart, "best"))]
    assert levels == sorted(levels), "the loss falls, and y goes down"
    assert all(0 <= n <= SIDE for n in numbers(path(chart, "best")))


def test_history_of_failures_alone_has_no_values_to_label() -> None:
    """Labels from 0 to 1 would look like losses."""
    chart = history_chart({0: outcome(0, error_type="E")}, LOSS)
    assert chart.y_ticks == ()
    assert [key.text for key in chart.keys] == ["failed"]


def test_trade_off_draws_the_front_of_the_report_and_the_winner() -> None:
    """Both read the same function, so the page and the report cannot disagree."""
    chart = trade_off_chart(TRIALS, 3)
    complete = {n: o for n, o in TRIALS.items() if not o.failed}
    assert path(chart, "front-dots").count("M") == len(pareto_front(complete, TOP1))
    assert path(chart, "winner").count("M") == 1
    assert path(chart, "winner") == path(chart, "winner-ring")


def test_surviving_choices_fill_every_column() -> None:
    """The shares of a support tensor's choices sum to one after each generation."""
    charts = dict(survival_charts(VIT, TRIALS, BY_LOSS))
    assert list(charts) == ["A", "B", "C", "D", "E"]
    for chart in charts.values():
        area = 0.0
        for d in (shape.d for shape in chart.shapes):
            for left, top, right, bottom in re.findall(r"M(\d+) (\d+)H(\d+)V(\d+)", d):
                area += (int(right) - int(left)) * (int(bottom) - int(top))
        assert area == pytest.approx(SIDE * SIDE, rel=0.01)
        assert [tick.text for tick in chart.x_ticks] == ["0", "2", "3"]


def test_a_chart_stays_short_whatever_the_number_of_points() -> None:
    """A study of 20,000 subnets must not make a page of megabytes; a small one loses nothing."""
    crowd = [(k * 7919 % 1000, k * 104729 % 997) for k in range(20_000)]
    step = step_for([crowd[::2], crowd[1::2]])
    assert 1 < step < 10
    assert len(dots(crowd[::2], step=step) + dots(crowd[1::2], step=step)) < 110_000
    few = [(1, 2), (3, 4), (1, 2)]
    assert step_for([few]) == 1
    assert dots(few) == "M1 2h0M3 4h0"


def test_stairs_hold_each_value_until_the_next() -> None:
    """A slope between two evaluations would claim what nobody measured."""
    assert stairs([(0, 9), (5, 9), (7, 3)], 20) == "M0 9H7V3H20"
    assert spark_path([3.0, 2.0, 5.0], higher_is_better=False).count("V") == 1
    assert spark_path([3.0], higher_is_better=False) == ""


def test_ranks_have_the_colours_of_the_report() -> None:
    """Low ranks light, high ranks dark; one or two ranks do without the dark end."""
    assert token_css(("none", "lora_2")) == {"none": "t-none", "lora_2": "t-rank-0"}
    three = token_css(("lora_8", "lora_2", "lora_4"))
    assert three == {"lora_8": "t-rank-8", "lora_2": "t-rank-0", "lora_4": "t-rank-4"}


def test_the_winners_layers_add_up_to_its_parameters() -> None:
    """The table stands for the whole subnet."""
    tables = subnet_tables(VIT, 3, TRIALS[3])
    lines = [line for block in tables.blocks for line in block.layers]
    assert sum(line.n_params for line in lines) == TRIALS[3].candidate.n_params
    assert [block.name for block in tables.blocks] == [f"blocks.{k}" for k in range(4)]
    assert max(line.share for line in lines) == 100


def test_workers_share_all_of_the_work() -> None:
    """Whoever looks for a slow or a failing worker finds it here."""
    lines = worker_lines(TRIALS)
    assert {(line.name, line.done, line.failed) for line in lines} == {
        ("node:0", 20, 0),
        ("node:1", 19, 1),
    }
    assert sum(line.share for line in lines) == pytest.approx(1)


def test_hypervolumes_of_two_studies_have_one_reference() -> None:
    """Otherwise the study with the worse first generation would seem to cover more."""
    worse = {n: replace(o, loss=(o.loss or 0) + 1) for n, o in TRIALS.items() if not o.failed}
    alone = hypervolume_so_far(TRIALS, BY_LOSS_AND_PARAMS)[-1]
    other = hypervolume_so_far(worse, BY_LOSS_AND_PARAMS)[-1]
    assert other == pytest.approx(alone), "each up to its own worst"
    pair = [Compared(0, "good", TRIALS), Compared(2, "bad", worse)]
    shared = shared_growth(pair, BY_LOSS_AND_PARAMS)
    assert shared is not None
    assert shared.last["bad"] == pytest.approx(other)
    assert shared.last["good"] > alone + 0.3
    heights = {css: numbers(path(shared.chart, css))[-2] for css in ("series-0", "series-2")}
    assert heights["series-0"] < heights["series-2"], "up is towards 0 on the page"
    assert shared_growth(pair[:1], BY_LOSS_AND_PARAMS) is None
    assert shared_growth([pair[0], Compared(1, "none", {})], BY_LOSS_AND_PARAMS) is None


def test_the_front_of_two_objectives_has_its_knee_and_grows(tmp_path: Path) -> None:
    """Loss against parameters; its dots are the front's, in their order."""
    with recorded(tmp_path, list(TRIALS.values()), objectives=BY_LOSS_AND_PARAMS) as study:
        snapshot = take_snapshot(study)
    front = front_of(snapshot)
    assert front is not None
    assert (front.size, front.knee) == (len(snapshot.front), snapshot.knee)
    assert set(front.shown) == set(snapshot.front)
    assert front.chart.y_title == LOSS.axis_title
    on_front = numbers(path(front.chart, "front-dots"))
    assert len(on_front) == 3 * front.size
    knee = numbers(path(front.chart, "knee"))
    assert knee == on_front[3 * snapshot.front.index(front.knee) :][:3]
    winner = numbers(path(front.chart, "winner"))
    assert winner == on_front[-3:], "the best loss is the end of the front"
    assert front.marks == {front.knee: "knee", snapshot.winner: "winner"}
    assert front.growth is not None
    rises = [int(y) for y in re.findall(r"V(-?\d+)", path(front.growth, "best"))]
    assert rises == sorted(rises, reverse=True), "it never shrinks"
    assert len(rises) > 3
    grown = hypervolume_so_far(snapshot.trials, snapshot.objectives)
    assert front.hypervolume == grown[-1] == max(grown)
    one = replace(snapshot, objectives=BY_LOSS)
    assert front_of(one) is None


def test_a_long_front_is_thinned_out_but_for_its_ends_and_its_knee(tmp_path: Path) -> None:
    """As many rows as a person reads."""
    long = [outcome(k, n_params=1000 + k * k, loss=1 / (1 + k)) for k in range(100)]
    with recorded(tmp_path, long, objectives=BY_LOSS_AND_PARAMS) as study:
        snapshot = take_snapshot(study)
    front = front_of(snapshot)
    assert front is not None
    assert front.size == 100
    assert len(front.shown) <= 42
    assert {0, 99, snapshot.knee} <= set(front.shown)
