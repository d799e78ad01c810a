"""What the figures show, read back from their data; that they are legal plotly has checked."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pytest
from reporting_studies import ONE_LAYER, SWIN, VIT, outcome, outcomes

from glora_search.reporting.course import generations
from glora_search.reporting.frequencies import expected_shares, observed_shares
from glora_search.reporting.frequency_figures import (
    ChoiceShares,
    by_depth_figure,
    low_rank_figure,
    overall_figure,
)
from glora_search.reporting.history import history_figure
from glora_search.reporting.layer_grid import layer_grid_figures, least_width_px
from glora_search.reporting.marks import operator_marks
from glora_search.reporting.tokens import short_form
from glora_search.reporting.trade_off import trade_off_figure
from glora_search.reporting.trials import Trials, pareto_front, ranking
from glora_search.study.objectives import BY_LOSS, BY_TOP1, LOSS, TOP1, Objectives
from search_spaces import NO_LIMITS, SUPPORTS, LayerSpec, SearchSpace

OPERATORS = ("random", "mutation", "crossover")


def traces(figure: go.Figure, name: str, axis: str | None = None) -> list[Any]:
    """The traces of that name, in the panel of that vertical axis."""
    return [t for t in figure.data if t.name == name and (axis is None or (t.yaxis or "y") == axis)]


def numbered(n: int, **options: Any) -> Trials:
    return dict(enumerate(outcomes(n, **options)))


def test_history_shows_every_subnet_once_in_each_panel() -> None:
    trials = {**numbered(30), 11: outcome(11, error_type="E")}
    figure = history_figure(trials, BY_LOSS)
    for axis, measure in (("y", LOSS), ("y2", TOP1)):
        shown = {
            told[0]: value
            for operator in OPERATORS
            for trace in traces(figure, operator, axis)
            for told, value in zip(trace.customdata, trace.y, strict=True)
        }
        unit = 1 if measure is LOSS else 100
        assert shown == {k: unit * measure.value(o) for k, o in trials.items() if not o.failed}
        (failed,) = traces(figure, "failed (no value)", axis)
        assert [told[0] for told in failed.customdata] == [11]
        assert list(failed.x) == [11]


@pytest.mark.parametrize("objectives", [BY_LOSS, BY_TOP1])
def test_history_has_the_fitness_above_and_the_best_so_far_never_gets_worse(
    objectives: Objectives,
) -> None:
    trials = numbered(40)
    figure = history_figure(trials, objectives)
    titles = [figure.layout.yaxis.title.text, figure.layout.yaxis2.title.text]
    assert titles == (
        ["val loss (nats)", "val top-1 (%)"]
        if objectives is BY_LOSS
        else ["val top-1 (%)", "val loss (nats)"]
    )
    (line,) = traces(figure, "best so far", "y")
    values = [
        (100 if objectives is BY_TOP1 else 1) * objectives.only.value(o) for o in trials.values()
    ]
    better = max if objectives is BY_TOP1 else min
    assert list(line.y)[:-1] == [better(values[: k + 1]) for k in range(40)]


def test_history_is_in_the_order_of_places_whatever_the_order_of_arrival() -> None:
    arrived = dict(enumerate(reversed(outcomes(20))))
    figure = history_figure(arrived, BY_LOSS)
    places = {
        told[0]: x
        for operator in OPERATORS
        for trace in traces(figure, operator, "y")
        for told, x in zip(trace.customdata, trace.x, strict=True)
    }
    assert places == {number: 19 - number for number in range(20)}


def test_generations_are_stretches_of_the_axis_with_their_means() -> None:
    trials = numbered(25)
    stretches = generations(list(trials.values()))
    assert [(g.number, g.start, g.stop) for g in stretches] == [
        (0, 0, 10),
        (1, 10, 20),
        (2, 20, 25),
    ]
    figure = history_figure(trials, BY_LOSS)
    (line,) = traces(figure, "mean of a generation", "y")
    means = [
        math.fsum(trials[k].loss or 0.0 for k in range(g.start, g.stop)) / (g.stop - g.start)
        for g in stretches
    ]
    assert list(line.y)[::4] == pytest.approx(means)
    assert list(figure.layout.xaxis2.ticktext) == ["0", "1", "2"]


def test_labels_of_many_generations_are_thinned() -> None:
    figure = history_figure(numbered(300, space=ONE_LAYER, per_generation=1), BY_LOSS)
    assert len(figure.layout.xaxis2.ticktext) == 20
    assert len(figure.layout.shapes) == 0


def test_losses_of_unlike_size_get_a_logarithmic_axis() -> None:
    """One diverged subnet must not press all others into a line."""
    trials = {**numbered(20), 20: outcome(20, loss=400.0), 21: outcome(21, error_type="E")}
    figure = history_figure(trials, BY_LOSS)
    assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", "linear")
    (failed,) = traces(figure, "failed (no value)", "y")
    assert 0 < failed.y[0] < min(o.loss for o in trials.values() if o.loss is not None)


def test_history_of_failures_alone_can_be_drawn() -> None:
    figure = history_figure({0: outcome(0, error_type="E")}, BY_LOSS)
    assert not traces(figure, "best so far")
    assert len(traces(figure, "failed (no value)")) == 2


def test_trade_off_shows_front_and_winner() -> None:
    trials = {**numbered(50), 50: outcome(50, error_type="E")}
    figure = trade_off_figure(trials, BY_LOSS, 200)
    for axis, measure in (("y", TOP1), ("y2", LOSS)):
        (front,) = traces(figure, "Pareto front", axis)
        assert [told[0] for told in front.customdata] == pareto_front(trials, measure)
    winner = ranking(trials, BY_LOSS)[0]
    stars = traces(figure, f"winner (trial {winner})")
    assert [star.x[0] for star in stars] == [trials[winner].candidate.n_params] * 2


def test_hover_tells_trial_operator_generation_and_digest() -> None:
    trials = numbered(12)
    figure = trade_off_figure(trials, BY_LOSS, None)
    told = {row[0]: row for o in OPERATORS for t in traces(figure, o, "y") for row in t.customdata}
    candidate = trials[11].candidate
    assert list(told[11][:4]) == [11, candidate.operator, 1, 1]
    assert told[11][7] == candidate.subnet.digest[:12]


def test_band_about_the_winner_is_one_standard_error_where_the_images_are_known() -> None:
    trials = {0: outcome(0, loss=0.1, top1=0.8), 1: outcome(1, loss=0.5, top1=0.5)}
    (band,) = trade_off_figure(trials, BY_LOSS, 400).layout.shapes
    assert (band.y0, band.y1) == pytest.approx((78, 82))
    assert not trade_off_figure(trials, BY_LOSS, None).layout.shapes


def test_operators_have_marks_of_their_own() -> None:
    names = [*OPERATORS, "tpe", "nsga2", "qmc"]
    marks = operator_marks(names)
    assert set(marks) == set(names)
    assert len({(m.colour, m.symbol) for m in marks.values()}) == len(names)


@pytest.mark.parametrize("space", [VIT, SWIN, ONE_LAYER], ids=["vit", "swin", "one layer"])
def test_grid_holds_every_choice_of_the_subnet_in_the_order_of_the_network(
    space: SearchSpace,
) -> None:
    subnet = outcome(3, space=space).candidate.subnet
    texts, told, totals = [], [], []
    for figure in layer_grid_figures(space, subnet):
        cells, bars = figure.data
        rows = [k for k, row in enumerate(cells.z) if row[0] is not None]
        texts += [list(cells.text[k]) for k in rows]
        told += [list(cells.customdata[k]) for k in rows]
        totals += list(bars.x)
    assert texts == [
        [short_form(token) for _, token in subnet.layers[layer.name].items()]
        for layer in space.layers
    ]
    assert totals == [subnet.layers[layer.name].n_params(layer) for layer in space.layers]
    names = [f"<b>{layer.name}.{support}</b>" for layer in space.layers for support in SUPPORTS]
    assert [text.split(":")[0] for row in told for text in row] == names


def test_grid_of_many_layers_stands_in_two_columns_of_like_height() -> None:
    first, second = layer_grid_figures(VIT, VIT.max_subnet())
    assert first.layout.height == second.layout.height
    assert [len(figure.data[1].x) for figure in (first, second)] == [8, 8]
    assert first.data[1].xaxis == "x2"
    assert first.layout.xaxis2.range == second.layout.xaxis2.range  # bars can be compared
    assert len(layer_grid_figures(SWIN, SWIN.max_subnet())) == 1


def test_grid_names_each_block_above_its_layers_and_makes_room_for_long_names() -> None:
    (figure,) = layer_grid_figures(SWIN, SWIN.max_subnet())
    labels = list(figure.layout.yaxis.ticktext)
    assert labels[:2] == ["<b>layers.0.blocks.0</b>", "attn.qkv"]
    assert labels.count("<b>layers.1</b>") == 1
    (narrow,) = layer_grid_figures(ONE_LAYER, ONE_LAYER.max_subnet())
    assert list(narrow.layout.yaxis.ticktext) == ["fc"]
    assert least_width_px(narrow) < least_width_px(figure)


def test_subnet_without_any_parameter_can_be_drawn() -> None:
    figures = layer_grid_figures(VIT, VIT.min_subnet())
    assert all(x == 0 for figure in figures for x in figure.data[1].x)


def _shares(space: SearchSpace, n: int) -> ChoiceShares:
    subnets = [o.candidate.subnet for o in outcomes(n, space=space)]
    return ChoiceShares(
        best=observed_shares(space, subnets[: n // 4]),
        evaluated=observed_shares(space, subnets),
        expected=expected_shares(space, NO_LIMITS),
    )


def test_overall_shares_of_each_support_tensor_sum_to_one_hundred() -> None:
    figure = overall_figure(VIT, _shares(VIT, 40))
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [math.fsum(bar.x) for bar in bars] == pytest.approx([100] * len(SUPPORTS))
    assert [len(bar.y) for bar in bars] == [len(VIT.choices[s]) for s in SUPPORTS]
    drawn = traces(figure, "uniform draws from the space")
    assert list(drawn[0].x) == pytest.approx([20] * 5)


def test_low_rank_map_has_a_cell_for_every_layer_that_is_offered_ranks() -> None:
    """A cell's number is the share among the best, its colour the difference from uniform draws."""
    shares = _shares(SWIN, 40)
    figure = low_rank_figure(SWIN, shares)
    assert figure is not None
    a, _, c = figure.data
    assert list(a.y) == ["attn.qkv", "downsample.reduction", "attn.proj"]
    assert list(c.y) == ["attn.qkv", "attn.proj"]  # where no bias can be, C has no ranks
    assert sum(cell is not None for row in a.z for cell in row) == len(SWIN.layers)
    best = sum(v for t, v in shares.best["layers.0.blocks.0.attn.qkv.A"].items() if "lora" in t)
    assert a.text[0][0] == f"{100 * best:.0f}"
    assert a.z[0][0] == pytest.approx(100 * (best - 0.4))
    assert a.text[1][0] == ""


def test_space_without_ranks_has_no_low_rank_map() -> None:
    choices = dict.fromkeys(SUPPORTS, ("vector", "none"))
    space = SearchSpace([LayerSpec("blocks.0.fc", 2, 2, bias=True)], choices)
    assert low_rank_figure(space, _shares(space, 8)) is None
    assert len(by_depth_figure(space, _shares(space, 8)).data) == len(SUPPORTS)


def test_by_depth_the_shares_of_a_block_sum_to_one_hundred() -> None:
    figure = by_depth_figure(VIT, _shares(VIT, 40))
    assert [len(panel.y) for panel in figure.data] == [len(VIT.choices[s]) for s in SUPPORTS]
    for panel in figure.data:
        for column in range(4):
            assert sum(row[column] for row in panel.z) == pytest.approx(0, abs=1e-9)
            assert sum(int(row[column]) for row in panel.text) == pytest.approx(100, abs=3)
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "2", "3"]


def test_numbers_in_cells_are_left_out_where_a_network_is_too_deep_for_them() -> None:
    layers = [LayerSpec(f"blocks.{k}.fc", 2, 2, bias=True) for k in range(40)]
    space = SearchSpace(layers, VIT.choices)
    deep = by_depth_figure(space, _shares(space, 8))
    assert deep.data[0].texttemplate is None
    assert by_depth_figure(VIT, _shares(VIT, 8)).data[0].texttemplate == "%{text}"
