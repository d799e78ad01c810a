"""Questions asked of supernets: what they come to in tables, on made-up results and a small bed."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glora_search.bench.layout import Layout
from glora_search.bench.runs import ArmFigures, Run, RunResult
from glora_search.bench.science.designs import BASE, DESIGNS, keys_of
from glora_search.bench.science.ends import shuffled
from glora_search.bench.science.plan import QuestionPlan
from glora_search.bench.science.scale import QUICK, Scale
from glora_search.bench.science.tables import (
    arms_of,
    evaluations_needed,
    flattery,
    front_table,
    rank_table,
    science_table,
)
from glora_search.bench.suites import Suite, offline_suite
from glora_search.cli.science_picture import draw_budgets
from glora_search.operations.science import PARTS, science
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import stored_study
from search_spaces import LayerConfig, SubnetConfig

EXPORTS = ("winner", "average of the 10 best", "random subnet", "winner, trained on")
LAYOUT = Layout(tasks=("a", "b"), whole=("a", "b"))


def figures(test_top1: float, val_loss: float = 1.0) -> ArmFigures:
    return ArmFigures(
        n_params=10,
        val_loss=val_loss,
        val_top1=0.5,
        test_loss=1.0,
        test_top1=test_top1,
        seconds=3.0,
    )


def answer(task: str, seed: int, **fields: Any) -> RunResult:
    run = Run(
        task=task, method="glora-search", seed=seed, lr=0.1, epochs=2, role="final", question="ends"
    )
    return RunResult(run=run, train_s=4.0, n_test=7, **fields)


def answers(gain: float) -> list[RunResult]:
    """Of a world in which the winner is above the other by `gain`, give or take."""
    return [
        answer(
            task,
            seed,
            arms={
                "winner": figures(base + gain + wobble, 0.9),
                "other": figures(base + wobble, 1.0),
            },
        )
        for task, base in (("a", 0.5), ("b", 0.7))
        for seed, wobble in enumerate((0.01, 0.0, -0.01))
    ]


def test_a_question_travels_through_json() -> None:
    """The database holds results as JSON; a question has a key of its own."""
    result = answers(0.1)[0]
    assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert result.run.key.endswith("/ends")


def test_arms_become_rows_with_paired_differences() -> None:
    """What both arms share, they were measured with: the wobble cancels."""
    table = science_table("arms", arms_of(answers(0.1)), "winner", LAYOUT)
    winner, other = table.rows
    assert (winner.method, other.method) == ("winner", "other")
    assert other.difference is not None
    assert other.difference.mean == pytest.approx(-0.1)
    assert other.difference.high - other.difference.low < 1e-9
    assert table.val_differences["other"] is not None
    assert table.val_differences["other"].mean == pytest.approx(0.1)
    assert table.seconds == {"winner": 7.0, "other": 7.0}
    assert json.dumps(table.to_json())


def test_the_first_arm_stands_for_a_design_and_failures_are_left_out() -> None:
    found = arms_of([*answers(0.1), answer("a", 9, error="no")], named="sandwich")
    assert {result.run.method for result in found} == {"sandwich"}
    assert len(found) == 6


@pytest.mark.slow
def test_sizes_are_drawn(tmp_path: Path) -> None:
    """A line a method, the same file each time; the reference has no difference and is drawn."""
    results = [
        dataclasses.replace(
            result,
            run=dataclasses.replace(result.run, method=f"{method} x{factor}"),
            n_params=1_000 * factor,
        )
        for result in arms_of(answers(0.1))
        for method, factor in (("winner", 1), ("winner", 2), ("lora", 1), ("lora", 2))
        if (result.run.method == "winner") == (method == "winner")
    ]
    table = science_table("sizes", results, "lora x1", LAYOUT)
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    draw_budgets(table, first)
    draw_budgets(table, second)
    drawn = first.read_text()
    assert drawn == second.read_text()
    assert {"winner", "lora"} <= set(re.findall(r">([^<>]+)</text>", drawn))
    assert "lora x1" in drawn


def ranking(alone: list[float], inherited: list[float], seed: int) -> RunResult:
    facts = {
        "alone": alone,
        "inherited": inherited,
        "tenth": alone[::-1],
        "untrained": [1.0] * len(alone),
    }
    return answer("a", seed, facts=facts)


def test_rank_correlations() -> None:
    """A supernet that ranks as training alone does, one that ranks the other way, and one that
    ranks nothing.
    """
    alone = [float(k) for k in range(20)]
    table = rank_table([ranking(alone, [k**2 for k in alone], seed) for seed in range(3)])
    assert table is not None
    assert table.taus["inherited"].mean == pytest.approx(1.0)
    assert table.taus["tenth"].mean == pytest.approx(-1.0)
    assert table.taus["untrained"].mean == 0.0
    assert table.top_taus["inherited"].mean == pytest.approx(1.0)
    assert rank_table([]) is None


def test_hypervolumes_are_compared_cell_by_cell() -> None:
    """What two searches share in a cell, the supernet, cancels in their difference."""
    results = [
        answer(
            "a",
            seed,
            facts={
                "curves": {
                    "ours": [0.1, 0.3 + level, 0.4, 0.5 + level],
                    "other": [0.1, 0.2 + level, 0.3, 0.4 + level],
                },
                "seconds": {"ours": 2.0, "other": 4.0},
            },
        )
        for seed, level in enumerate((0.0, 0.2, 0.3))
    ]
    failed = answer("a", 9, error="no")
    table = front_table([*results, failed], "ours", evaluations=40)
    assert table is not None
    for found in (table.differences["other"], table.halfway["other"]):
        assert found is not None
        assert (found.mean, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert table.volumes["ours"].mean == pytest.approx(0.5 + 0.5 / 3)
    assert "ours" not in table.differences
    assert json.dumps(table.to_json())
    assert front_table([failed], "ours", evaluations=40) is None


def test_the_winners_curse_is_what_a_random_subnet_does_not_have() -> None:
    """Halves differ for every subnet; that is not the search's doing."""
    results = [
        answer("a", seed, facts={"flattery": {"winner": 0.3 + half, "random subnet": half}})
        for seed, half in enumerate((0.1, -0.1, 0.0))
    ]
    found = flattery([*results, answer("a", 9, error="no")])
    curse = found["winner less random"]
    assert (curse.mean, curse.low, curse.high) == pytest.approx((0.3, 0.3, 0.3))
    assert found["winner"].mean == pytest.approx(0.3)


def test_the_best_fifth_is_ranked_apart() -> None:
    """A supernet may tell bad from good and still not the best from the good."""
    alone = [float(k) for k in range(20)]
    inherited = [3.0, 2.0, 1.0, 0.0, *alone[4:]]
    table = rank_table([ranking(alone, inherited, seed) for seed in range(2)])
    assert table is not None
    assert table.top_taus["inherited"].mean == pytest.approx(-1.0)
    assert table.taus["inherited"].mean > 0.9


def test_how_many_evaluations_a_sampler_needs() -> None:
    """Until the loss at which the reference ends; twice the number made where none gets there."""
    curves = {"evolution": [3.0, 2.0, 1.0, 1.0], "fast": [1.0, 0.5, 0.5, 0.5], "slow": [3.0] * 4}
    needed = evaluations_needed(
        [answer("a", seed, facts={"curves": curves}) for seed in range(2)], "evolution"
    )
    assert {name: each.mean for name, each in needed.items()} == {
        "evolution": 3,
        "fast": 1,
        "slow": 8,
    }


def test_layers_of_one_kind_exchange_their_configurations() -> None:
    """So the size stays, and only the place changes."""
    rng = random.Random(0)
    layers = {
        f"blocks.{block}.{kind}": LayerConfig(B=rng.choice(["lora_2", "vector", "none"]))
        for block in range(6)
        for kind in ("attn.qkv", "mlp.fc1")
    }
    subnet = SubnetConfig(layers)
    other = shuffled(subnet, random.Random(1))
    assert other != subnet
    for kind in ("attn.qkv", "mlp.fc1"):
        mine = sorted(c.B for name, c in subnet.layers.items() if name.endswith(kind))
        assert mine == sorted(c.B for name, c in other.layers.items() if name.endswith(kind))


def test_every_design_is_a_study(tmp_path: Path) -> None:
    """Each changes keys that exist; all but the default differ from it, and from each other."""
    digests = set()
    for name in DESIGNS:
        suite = offline_suite(["count"], tmp_path, workers=0, supernet=keys_of(name, 90))
        plan = QuestionPlan(suite=suite, seeds=2, question="winner")
        digests.add(plan.runs[0].study)
        assert len(plan.ready({})) == plan.n_runs == 2
    assert len(digests) == len(DESIGNS)
    assert keys_of(BASE, 90) == {}
    assert keys_of("a third of the epochs", 90) == {"epochs": 30}


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"parts": ["end"]}, "parts = end: each of methods"), ({"designs": ["x"]}, "designs = x")],
)
def test_unknown_names_are_refused(fields: dict[str, Any], told: str, tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(StudyFileError, match=told):
        science(directory=tmp_path, **fields)
    assert not list(tmp_path.iterdir())


def small_suite(*args: Any, **kwargs: Any) -> Suite:
    """The offline suite with a small backbone that hardly trained, and searches of 16 subnets."""
    suite = offline_suite(*args, **kwargs)
    files = {}
    for task, file in suite.files.items():
        table = json.loads(file.to_json())
        table["backbone"]["pretrain"] |= {"epochs": 1, "warmup_epochs": 0}
        table["backbone"]["pretrain"]["data"]["n_train"] = 64
        table["backbone"]["args"] |= {"embed_dim": 24, "depth": 2}
        table["data"] |= {"n_train": 48, "n_val": 48}
        table["search"] |= {"population": 8, "mutations": 4, "crossovers": 4, "parents": 4}
        table["search"]["max_params"] //= 6  # as the layers are smaller
        table["search"]["generations"] = 1
        files[task] = stored_study(table)
    return dataclasses.replace(suite, files=files)


def test_the_quick_scale_has_small_searches(tmp_path: Path) -> None:
    """Ten minutes would otherwise go into the samplers alone."""
    suite = offline_suite(QUICK.tasks, tmp_path, workers=0, search=QUICK.search)
    for file in suite.files.values():
        assert file.search.population * (file.search.generations + 1) == 100
        assert file.search.max_params == 18_432, "the rest is the suite's"


@pytest.mark.slow
def test_all_parts_on_the_smallest_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part gives its table, and a second call trains nothing."""
    from glora_search.operations import science as module

    scale = Scale(
        tasks=("digits",),
        seeds=1,
        some_tasks=("digits",),
        some_seeds=1,
        methods=("linear", "lora"),
        best_of=2,
        ranked=4,
        designs=(BASE, "published"),
        budgets=(1.0, 2.0),
    )
    monkeypatch.setattr(module, "QUICK", scale)
    monkeypatch.setattr(module, "offline_suite", small_suite)
    monkeypatch.setattr(module, "QUICK_EPOCHS", 2)
    storage = f"sqlite:///{tmp_path / 'science.db'}"
    keys = {"quick": True, "epochs": 2, "directory": tmp_path, "workers": 0, "storage": storage}
    found = science(**keys)
    assert not [result.error for result in found.runs if result.failed]
    assert set(found.tables) == set(PARTS) - {"ranking", "fronts"}
    assert set(found.flattery) == {"winner", "random subnet", "winner less random"}
    assert found.fronts is not None
    assert found.fronts.evaluations == 16
    assert found.fronts.volumes["ours"].n == 1
    assert [row.method for row in found.tables["designs"].rows] == [BASE, "published"]
    assert [row.method for row in found.tables["methods"].rows] == [
        *("linear", "lora", *EXPORTS),
    ]
    assert [row.method for row in found.tables["cost"].rows] == [
        *("lora", "lora, 3 epochs", "lora, best of 2 by val", *EXPORTS),
    ]
    cost = found.tables["cost"]
    assert cost.calibrated.keys() == {row.method for row in cost.rows}
    assert found.ranks is not None
    assert found.ranks.subnets == 4
    assert found.needed["evolution"].mean <= 16
    ends = found.tables["ends"].rows
    assert {row.n_runs for row in ends} == {1}
    again = science(**keys)
    assert json.dumps(again.to_json()) == json.dumps(found.to_json())
    assert np.isfinite([row.test_top1.mean for row in ends if row.test_top1]).all()
