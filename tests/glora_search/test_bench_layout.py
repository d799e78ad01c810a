"""Means over tasks and groups, against arithmetic that is written out a second time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_search.bench.layout import Layout
from glora_search.bench.published import VTAB_PUBLISHED
from glora_search.bench.suites import VTAB_GROUPS
from supernet.data import VTAB_CLASSES

WHOLE = tuple(VTAB_CLASSES)
FIGURES = st.fixed_dictionaries({task: st.floats(0, 1) for task in WHOLE})


def layout(tasks: tuple[str, ...] = WHOLE) -> Layout:
    return Layout(tasks=tasks, whole=WHOLE, groups=VTAB_GROUPS, mean_of_groups=True)


def test_the_groups_are_the_19_tasks_in_their_order() -> None:
    assert tuple(task for tasks in VTAB_GROUPS.values() for task in tasks) == WHOLE
    assert [len(tasks) for tasks in VTAB_GROUPS.values()] == [7, 4, 8]


@given(FIGURES)
def test_the_mean_of_groups_weighs_a_task_by_its_group(figures: dict[str, float]) -> None:
    means = layout().means(figures)
    weights = [1 / 21] * 7 + [1 / 12] * 4 + [1 / 24] * 8
    expected = sum(w * figures[task] for w, task in zip(weights, WHOLE, strict=True))
    assert means.of_groups == pytest.approx(expected)
    assert means.of_tasks == pytest.approx(sum(figures.values()) / 19)


@pytest.mark.slow
@given(FIGURES, st.sets(st.sampled_from(WHOLE), min_size=1))
def test_a_subset_has_the_means_of_its_own_tasks(
    figures: dict[str, float], chosen: set[str]
) -> None:
    tasks = tuple(task for task in WHOLE if task in chosen)
    found = layout(tasks)
    means = found.means({task: figures[task] for task in tasks})
    assert found.complete == (len(tasks) == 19)
    assert set(means.groups) == {n for n, members in VTAB_GROUPS.items() if chosen & set(members)}
    assert means == found.means(figures), "figures of other tasks count for nothing"
    low, high = min(figures[t] for t in tasks), max(figures[t] for t in tasks)
    for mean in (*means.groups.values(), means.of_groups, means.of_tasks):
        assert mean is not None
        assert low - 1e-9 <= mean <= high + 1e-9


@given(FIGURES, st.sampled_from(WHOLE))
def test_a_task_without_a_figure_leaves_its_means_open(
    figures: dict[str, float], missing: str
) -> None:
    del figures[missing]
    means = layout().means(figures)
    assert means.of_groups is means.of_tasks is None
    open_groups = {name for name, mean in means.groups.items() if mean is None}
    assert open_groups == {name for name, tasks in VTAB_GROUPS.items() if missing in tasks}


def test_published_figures_are_fractions_and_counts() -> None:
    assert len(VTAB_PUBLISHED) == 13
    for figure in VTAB_PUBLISHED:
        assert 0.5 < figure.mean_of_groups < 0.8
        assert 1e4 < figure.n_params < 1e8
